// Who is online. What somebody looks at is asked for, and again after each new connection.

import { type Batch, Cell, type Readable } from "./store.js";
import type { Presence } from "./types.js";

/** The most users in one `presence.query`. */
const USERS_MAX = 500;
const UNKNOWN: Presence = { online: undefined };

export class PresenceBook {
  readonly #batch: Batch;
  readonly #query: (userIds: string[]) => void;
  readonly #users = new Map<string, { value: Presence; cell: Cell<Presence> }>();
  readonly #asking = new Set<string>();

  constructor(batch: Batch, query: (userIds: string[]) => void) {
    this.#batch = batch;
    this.#query = query;
  }

  of(userId: string): Readable<Presence> {
    return this.#user(userId).cell;
  }

  told(userId: string, online: boolean, lastSeen?: string | null): void {
    const user = this.#user(userId);
    const seen = lastSeen ?? user.value.lastSeen;
    user.value = { online, ...(seen ? { lastSeen: seen } : {}) };
    user.cell.touch();
  }

  /** A new connection: those that are looked at are asked for, and of the others nothing is known. */
  refresh(): void {
    for (const [userId, user] of this.#users) {
      if (user.cell.isObserved) this.#ask(userId);
      else user.value = UNKNOWN;
      user.cell.touch();
    }
  }

  /** They share a conversation now; what was told before may be old, because nobody told of changes. */
  met(userIds: readonly string[]): void {
    for (const userId of userIds) if (this.#users.get(userId)?.cell.isObserved) this.#ask(userId);
  }

  #user(userId: string) {
    const known = this.#users.get(userId);
    if (known) return known;
    const user: { value: Presence; cell: Cell<Presence> } = {
      value: UNKNOWN,
      cell: new Cell<Presence>(
        this.#batch,
        () => user.value,
        () => {
          if (user.value.online === undefined) this.#ask(userId);
        },
      ),
    };
    this.#users.set(userId, user);
    return user;
  }

  #ask(userId: string): void {
    if (this.#asking.size === 0) queueMicrotask(() => this.#flush());
    this.#asking.add(userId);
  }

  #flush(): void {
    const asked = [...this.#asking];
    this.#asking.clear();
    for (let at = 0; at < asked.length; at += USERS_MAX) this.#query(asked.slice(at, at + USERS_MAX));
  }
}
