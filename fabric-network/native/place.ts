/** Where `npm run fabric:up` keeps its network unless told otherwise; from the folder in which it is called. */
export const defaultNetworkDir = 'fedfab-data/fabric';
