// Which tab sends what waits in a shared storage. Each queue holds a Web Lock as long as its page lives; a page that gets
// the lock of another queue knows that its page is gone.

interface LockManager {
  request<T>(name: string, run: () => Promise<T>): Promise<T>;
}

const NAME = "parley-queue:";

/** Absent in Node, in React Native, and in pages over plain http. */
const manager = (): LockManager | undefined => (globalThis as { navigator?: { locks?: LockManager } }).navigator?.locks;

/** Holds the lock of this queue until the answer is called. */
export function holdLock(queue: string): () => void {
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  manager()
    ?.request(NAME + queue, () => held)
    .catch(() => {});
  return release;
}

/**
 * Runs `adopt` when the page of another queue is gone. Without locks, or where the browser refuses them, at once: then two
 * tabs may send one message, which the gateway stores once, because both send it under its `tempId`.
 */
export function whenGone(queue: string, adopt: () => Promise<void>): void {
  const locks = manager();
  if (locks) locks.request(NAME + queue, adopt).catch(adopt);
  else void adopt();
}
