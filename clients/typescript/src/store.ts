// State for user interfaces: immutable snapshots that can be subscribed to.

/** A value that changes. React's `useSyncExternalStore`, Svelte and Vue's `shallowRef` take it as it is. */
export interface Readable<T> {
  /** The snapshot. It is the same object until something in it changes. */
  get(): T;
  /** Calls `listener` now and after each change. The answer ends that. */
  subscribe(listener: (value: T) => void): () => void;
}

/** Tells listeners once, after everything that changed in one go. */
export class Batch {
  #changed = new Set<Cell<unknown>>();

  add(cell: Cell<unknown>): void {
    if (this.#changed.size === 0) queueMicrotask(() => this.#flush());
    this.#changed.add(cell);
  }

  #flush(): void {
    const changed = this.#changed;
    this.#changed = new Set();
    for (const cell of changed) cell.notify();
  }
}

/** A snapshot that is computed when somebody asks for it after a change. */
export class Cell<T> implements Readable<T> {
  #value: T | undefined;
  #told: T | undefined;
  #isStale = true;
  readonly #listeners = new Set<{ call: (value: T) => void }>();
  readonly #batch: Batch;
  readonly #compute: (before: T | undefined) => T;
  readonly #onSubscribe: (() => void) | undefined;

  /** `compute` gets the snapshot before, which it returns if nothing changed. */
  constructor(batch: Batch, compute: (before: T | undefined) => T, onSubscribe?: () => void) {
    this.#batch = batch;
    this.#compute = compute;
    this.#onSubscribe = onSubscribe;
  }

  get isObserved(): boolean {
    return this.#listeners.size > 0;
  }

  get(): T {
    if (this.#isStale) {
      this.#value = this.#compute(this.#value);
      this.#isStale = false;
    }
    return this.#value as T;
  }

  subscribe(listener: (value: T) => void): () => void {
    // Two subscriptions of one function are two.
    const entry = { call: listener };
    this.#listeners.add(entry);
    this.#onSubscribe?.();
    this.#told = this.get();
    listener(this.#told);
    return () => void this.#listeners.delete(entry);
  }

  /** Something that the snapshot shows has changed. */
  touch(): void {
    this.#isStale = true;
    if (this.#listeners.size > 0) this.#batch.add(this as Cell<unknown>);
  }

  notify(): void {
    const value = this.get();
    if (Object.is(value, this.#told)) return;
    this.#told = value;
    for (const entry of [...this.#listeners]) entry.call(value);
  }
}
