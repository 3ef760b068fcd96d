// A clock that goes only when a test says so, and chance that repeats.

import type { Clock } from "../../src/clock.js";

interface Alarm {
  atMs: number;
  order: number;
  task: () => void;
}

/** Numbers from 0 to 1 that are the same in each run with one seed. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Lets all promises that can go on go on. */
export const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export class FakeClock implements Clock {
  readonly random: () => number;
  #nowMs = Date.parse("2026-01-01T00:00:00Z");
  #alarms: Alarm[] = [];
  #order = 0;

  constructor(seed = 1) {
    this.random = seededRandom(seed);
  }

  now(): number {
    return this.#nowMs;
  }

  get alarms(): number {
    return this.#alarms.length;
  }

  setTimeout(task: () => void, delayMs: number): unknown {
    const alarm = { atMs: this.#nowMs + Math.max(0, delayMs), order: ++this.#order, task };
    this.#alarms.push(alarm);
    return alarm;
  }

  clearTimeout(timer: unknown): void {
    this.#alarms = this.#alarms.filter((alarm) => alarm !== timer);
  }

  /** Moves on, and runs what is due on the way, in its order. */
  async advance(ms: number): Promise<void> {
    const endMs = this.#nowMs + ms;
    await settle();
    for (;;) {
      const next = this.#alarms.reduce<Alarm | undefined>((first, alarm) => {
        if (alarm.atMs > endMs) return first;
        if (!first || alarm.atMs < first.atMs) return alarm;
        return alarm.atMs === first.atMs && alarm.order < first.order ? alarm : first;
      }, undefined);
      if (!next) break;
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      this.clearTimeout(next);
      next.task();
      await settle();
    }
    this.#nowMs = endMs;
  }
}
