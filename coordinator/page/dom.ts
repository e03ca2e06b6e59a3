/**
 * The few things that the page does to its document. Data goes in as text nodes and attributes only, never as markup;
 * nothing is touched that has not changed, so that an update costs as much as what is new.
 */

/** What a node is made with. `text` is content, `class` may name several; the rest are attributes. */
export interface Parts {
  readonly class?: string;
  readonly text?: string;
  readonly [attribute: string]: string | undefined;
}

/** Makes an element. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  parts: Parts = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(parts)) {
    if (value === undefined) continue;
    if (name === 'text') made.textContent = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const svgNamespace = 'http://www.w3.org/2000/svg';

/** Makes an element of a drawing. */
export function drawn<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Readonly<Record<string, string | number>> = {},
  ...children: (Node | string)[]
): SVGElementTagNameMap[K] {
  const made = document.createElementNS(svgNamespace, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  made.append(...children);
  return made;
}

/** One of the signs of `index.html`, beside words that say the same. */
export function sign(name: string): SVGElement {
  const use = drawn('use', { href: `#sign-${name}` });
  return drawn('svg', { class: `sign sign-${name}`, 'aria-hidden': 'true', width: 12, height: 12 }, use);
}

/** Sets text where it differs. */
export function setText(node: Node, text: string): void {
  if (node.textContent !== text) node.textContent = text;
}

/** Sets an attribute where it differs; null takes it away. */
export function setAttribute(node: Element, name: string, value: string | null): void {
  if (node.getAttribute(name) === value) return;
  if (value === null) node.removeAttribute(name);
  else node.setAttribute(name, value);
}

/**
 * Keeps the size of an element's content, in px, without ever asking for it: a question in the middle of an update makes the
 * browser lay the whole page out at once. `onChange`: it is another now.
 */
export function watchSize(
  node: Element,
  onChange: () => void,
): () => { readonly width: number; readonly height: number } {
  let size = { width: 0, height: 0 };
  new ResizeObserver(([entry]) => {
    if (entry === undefined) return;
    const { width, height } = entry.contentRect;
    if (width === size.width && height === size.height) return;
    size = { width, height };
    onChange();
  }).observe(node);
  return () => size;
}

/** Shows or hides. */
export function show(node: HTMLElement, shown: boolean): void {
  if (node.hidden === shown) node.hidden = !shown;
}

/** The element of this id. Throws where `index.html` has none. */
export function byId(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found;
}

/** A list of nodes that stand for items: made once for each key, kept in the items' order, gone with them. */
export class KeyedList<T, N extends Element> {
  readonly #parent: Element;
  readonly #make: (item: T) => { readonly node: N; readonly update: (item: T) => void };
  readonly #known = new Map<string | number, { readonly node: N; readonly update: (item: T) => void }>();

  constructor(parent: Element, make: (item: T) => { readonly node: N; readonly update: (item: T) => void }) {
    this.#parent = parent;
    this.#make = make;
  }

  /** Makes the list these items. As few nodes are moved as can be; those that are in place stay untouched. */
  update(items: readonly T[], keyOf: (item: T) => string | number): void {
    const wanted = new Set(items.map(keyOf));
    for (const [key, { node }] of this.#known) {
      if (wanted.has(key)) continue;
      node.remove();
      this.#known.delete(key);
    }
    const nodes = items.map((item) => {
      const { node, update } = this.#entry(keyOf(item), item);
      update(item);
      return node;
    });
    const places = new Map<Element, number>([...this.#parent.children].map((child, place) => [child, place]));
    const staying = longestIncreasing(nodes.map((node) => places.get(node) ?? -1));
    let next: Element | null = null;
    for (const [index, node] of [...nodes.entries()].reverse()) {
      if (!staying.has(index)) this.#place(node, next);
      next = node;
    }
  }

  #entry(key: string | number, item: T): { readonly node: N; readonly update: (item: T) => void } {
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const made = this.#make(item);
    this.#known.set(key, made);
    return made;
  }

  /** A node that is moved loses the focus: it is given back. */
  #place(node: N, before: Element | null): void {
    const focused = node.contains(document.activeElement) ? document.activeElement : null;
    this.#parent.insertBefore(node, before);
    if (focused instanceof HTMLElement) focused.focus({ preventScroll: true });
  }
}

/**
 * The indices of a longest part of the list that grows from left to right, −1 left out: what is in it may stay where it
 * is, and the rest is moved around it. Costs n log n.
 */
export function longestIncreasing(values: readonly number[]): ReadonlySet<number> {
  // For each length, the index of the smallest value that such a part can end with; and what comes before each index.
  const ends: number[] = [];
  const before = new Map<number, number>();
  for (const [index, value] of values.entries()) {
    if (value < 0) continue;
    const length = firstNotBelow(ends, values, value);
    const previous = ends[length - 1];
    if (previous !== undefined) before.set(index, previous);
    ends[length] = index;
  }
  const found = new Set<number>();
  for (let index = ends.at(-1); index !== undefined; index = before.get(index)) found.add(index);
  return found;
}

function firstNotBelow(ends: readonly number[], values: readonly number[], value: number): number {
  let [low, high] = [0, ends.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((values[ends[middle] ?? 0] ?? 0) < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
