// Storages for messages that wait: `localStorage`, IndexedDB, memory. Another one needs the four methods of `QueueStorage`.

import type { QueueStorage } from "./types.js";

export type { QueueStorage } from "./types.js";

/** A storage that answers at once. */
interface AtOnce extends QueueStorage {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
  getAllKeys(): string[];
}

/** Forgets everything with the page. */
export function memory(): AtOnce {
  const items = new Map<string, string>();
  return {
    getItem: (key) => items.get(key) ?? null,
    setItem: (key, value) => void items.set(key, value),
    removeItem: (key) => void items.delete(key),
    getAllKeys: () => [...items.keys()],
  };
}

/** The page's `localStorage`. `name` separates clients of one page from one another. */
export function localStorage(name: string): AtOnce {
  const items = globalThis.localStorage;
  const prefix = `${name}/`;
  return {
    getItem: (key) => items.getItem(prefix + key),
    setItem: (key, value) => items.setItem(prefix + key, value),
    removeItem: (key) => items.removeItem(prefix + key),
    getAllKeys: () =>
      Object.keys(items)
        .filter((key) => key.startsWith(prefix))
        .map((key) => key.slice(prefix.length)),
  };
}

const STORE = "queue";

/** Workers have no `localStorage`, and the user may forbid it. */
function journalOf(name: string): AtOnce {
  try {
    if (globalThis.localStorage) return localStorage(name);
  } catch {
    // The user forbids it.
  }
  return memory();
}

/**
 * A database of its own, with this name. IndexedDB writes later, and forgets what it has not written when the page goes. So
 * each item is also in `localStorage` until it is written.
 */
export function indexedDb(name: string): QueueStorage {
  const journal = journalOf(`parley-journal/${name}`);
  let opened: Promise<IDBDatabase> | undefined;
  const open = () => {
    opened ??= new Promise<IDBDatabase>((resolve, reject) => {
      const request = globalThis.indexedDB.open(name, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(STORE);
      request.onsuccess = () => {
        const database = request.result;
        // The browser closes it when the user clears the site's data, or another version wants it.
        database.onclose = database.onversionchange = () => {
          opened = undefined;
          database.close();
        };
        resolve(database);
      };
      request.onerror = () => reject(request.error);
    });
    opened.catch(() => {
      opened = undefined;
    });
    return opened;
  };
  const run = async <T>(mode: IDBTransactionMode, use: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> => {
    const transaction = (await open()).transaction(STORE, mode);
    const request = use(transaction.objectStore(STORE));
    return new Promise<T>((resolve, reject) => {
      transaction.oncomplete = () => resolve(request.result);
      transaction.onerror = transaction.onabort = () => reject(transaction.error ?? request.error);
    });
  };
  return {
    getItem: async (key) =>
      journal.getItem(key) ?? (await run<string | undefined>("readonly", (store) => store.get(key))) ?? null,
    async setItem(key, value) {
      try {
        journal.setItem(key, value);
      } catch {
        // It is full. Then only the database has it.
      }
      await run("readwrite", (store) => store.put(value, key));
      if (journal.getItem(key) === value) journal.removeItem(key);
    },
    async removeItem(key) {
      journal.removeItem(key);
      await run("readwrite", (store) => store.delete(key));
    },
    async getAllKeys() {
      // The journal first: an item that leaves it meanwhile is in the database then.
      const keys = journal.getAllKeys();
      const written = await run("readonly", (store) => store.getAllKeys());
      return [...new Set([...keys, ...written.map(String)])];
    },
  };
}
