// The page's elements, and the few ways in which they change. A text never becomes markup.

export const byId = <T extends HTMLElement = HTMLElement>(id: string): T => {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found as T;
};

export function el<K extends keyof HTMLElementTagNameMap>(tag: K, className = "", text = ""): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}

/** Names a part of a row or a message, for `child`. */
export function part<T extends HTMLElement | SVGElement>(node: T, name: string): T {
  node.dataset.part = name;
  return node;
}

export function child<T extends Element = HTMLElement>(node: Element, name: string): T {
  const found = node.querySelector<T>(`[data-part="${name}"]`);
  if (!found) throw new Error(`no part is called ${name}`);
  return found;
}

export function setText(node: Node, text: string): void {
  if (node.textContent !== text) node.textContent = text;
}

/** Keeps one child for each key, in order, and touches only what changed, so that focus and scrolling survive. */
export function reconcile<T>(
  parent: HTMLElement,
  items: readonly T[],
  keyOf: (item: T) => string,
  create: (item: T) => HTMLElement,
  update: (node: HTMLElement, item: T) => void,
): void {
  const old = new Map(
    [...parent.children].map((node) => [(node as HTMLElement).dataset.key ?? "", node as HTMLElement]),
  );
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    const node = old.get(key) ?? create(item);
    old.delete(key);
    node.dataset.key = key;
    update(node, item);
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
  }
  for (const node of old.values()) node.remove();
}

export function paintAvatar(node: HTMLElement, name: string): void {
  const label = name.slice(0, 1).toUpperCase();
  const first = node.firstChild;
  if (first instanceof Text) setText(first, label);
  else node.prepend(label);
  let hue = 0;
  for (const letter of name) hue = (hue * 31 + (letter.codePointAt(0) ?? 0)) % 360;
  node.style.setProperty("--hue", `${hue}`);
}

const NOTICE_MS = 6_000;

export function notice(text: string): void {
  const line = el("p", "", text);
  byId("notices").append(line);
  setTimeout(() => line.remove(), NOTICE_MS);
}

export const report = (fault: unknown): void => notice(fault instanceof Error ? fault.message : String(fault));

/** Whether the user looks at the page. */
export const isAttentive = (): boolean => document.visibilityState === "visible" && document.hasFocus();
