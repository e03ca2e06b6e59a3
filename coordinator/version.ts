/** FedFab's own version, from `package.json`: the only place where it is written. */
import metadata from '../package.json' with { type: 'json' };

/** Semantic version. */
export const { version } = metadata;
