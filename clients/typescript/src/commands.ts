// Commands over the socket that are answered by an event or an error.

import { type Clock, Timer } from "./clock.js";
import { offline, ParleyError, timedOut } from "./errors.js";
import type { Frame } from "./types.js";

interface Asked {
  isAnswer(frame: Frame): boolean;
  resolve(): void;
  reject(fault: ParleyError): void;
  timer: Timer;
}

const ANSWER_MS_MAX = 15_000;

export class Commands {
  readonly #clock: Clock;
  readonly #send: (frame: object) => boolean;
  readonly #asked = new Map<string, Asked>();
  #last = 0;

  constructor(clock: Clock, send: (frame: object) => boolean) {
    this.#clock = clock;
    this.#send = send;
  }

  /** Resolves with the first frame that answers: by its reference, or because `isAnswer` says so. */
  ask(type: string, payload: object, isAnswer: (frame: Frame) => boolean): Promise<void> {
    const ref = `c${++this.#last}`;
    return new Promise((resolve, reject) => {
      const timer = new Timer(this.#clock);
      this.#asked.set(ref, { isAnswer, resolve, reject, timer });
      timer.start(ANSWER_MS_MAX, () => this.#end(ref)?.reject(timedOut()));
      if (!this.#send({ type, payload, ref })) this.#end(ref)?.reject(offline());
    });
  }

  onFrame(frame: Frame): void {
    for (const [ref, asked] of this.#asked) {
      if (frame.ref === ref && frame.type === "error") this.#end(ref)?.reject(new ParleyError(frame.payload));
      else if (frame.ref === ref || asked.isAnswer(frame)) this.#end(ref)?.resolve();
    }
  }

  lost(): void {
    for (const ref of [...this.#asked.keys()]) this.#end(ref)?.reject(offline());
  }

  #end(ref: string): Asked | undefined {
    const asked = this.#asked.get(ref);
    this.#asked.delete(ref);
    asked?.timer.stop();
    return asked;
  }
}
