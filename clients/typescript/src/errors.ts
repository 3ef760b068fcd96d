// The one kind of error that the client throws and shows.

import type { ErrorCode } from "./types.js";

/** The gateway's answer to something that it did not do, or the reason why the client did not ask it. */
export class ParleyError extends Error {
  /** For programs. Codes of the gateway (`UNAVAILABLE` also where none answers), and `CLOSED` of the client itself. */
  readonly code: ErrorCode | "CLOSED";
  /** Whether the same request may succeed later, unchanged. */
  readonly retryable: boolean;
  /** How long to wait before that. */
  readonly retryAfterMs: number | undefined;
  /** The field at fault. */
  readonly field: string | undefined;

  constructor(fault: ErrorBody) {
    super(fault.message);
    this.name = "ParleyError";
    this.code = fault.code;
    this.retryable = fault.retryable;
    this.retryAfterMs = fault.retryAfterMs ?? undefined;
    this.field = fault.field ?? undefined;
  }
}

/** An error as it stands in a frame, in an answer over REST, and in the stored queue. */
export interface ErrorBody {
  code: ParleyError["code"];
  message: string;
  retryable: boolean;
  retryAfterMs?: number | null | undefined;
  field?: string | null | undefined;
}

export const closed = (reason: string): ParleyError =>
  new ParleyError({ code: "CLOSED", message: `the client has stopped: ${reason}`, retryable: false });
