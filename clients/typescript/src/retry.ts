// Decisions about trying again: pure functions of a close code or a number of tries.

/** The client's next step after a connection has ended. */
export type Next =
  | { step: "stop" }
  /** Connect after a wait that grows with each try. */
  | { step: "backOff" }
  /** Connect soon; the node asked for it. */
  | { step: "soon" }
  /** Connect with a fresh token. */
  | { step: "freshToken" }
  /** Connect without a position. */
  | { step: "forgetPosition" };

/** What to do after a close with this code. Codes that say nothing (1006 above all) mean a lost connection. */
export function afterClose(code: number): Next {
  if (code === 4300) return { step: "freshToken" };
  if (code === 4301) return { step: "forgetPosition" };
  if (code >= 4000 && code < 4100) return { step: "stop" };
  if (code >= 4200 && code < 4300) return { step: "soon" };
  return { step: "backOff" };
}

const WAIT_MS_FIRST = 1_000;
const WAIT_MS_MAX = 30_000;

/** Full jitter: any time up to a bound that doubles, so that many clients of one dead node don't come back together. */
export function backOffMs(triesBefore: number, random: number, atLeastMs = 0): number {
  return atLeastMs + random * Math.min(WAIT_MS_MAX, WAIT_MS_FIRST * 2 ** Math.min(triesBefore, 10));
}

/** `Retry-After` in milliseconds: seconds or a date; `undefined` if it is neither. */
export function retryAfterMs(header: string | null, nowMs: number): number | undefined {
  if (!header) return undefined;
  const seconds = Number(header);
  if (Number.isFinite(seconds)) return Math.max(0, seconds * 1_000);
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, date - nowMs);
}

/** The claim `exp` of a JWT in milliseconds since 1970; `undefined` where the token is no JWT or has none. */
export function expiresAtMs(token: string): number | undefined {
  try {
    const part = (token.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/");
    const { exp } = JSON.parse(atob(part)) as { exp?: unknown };
    return typeof exp === "number" ? exp * 1_000 : undefined;
  } catch {
    return undefined;
  }
}

/** How long before its end a token is refreshed: a third of its life, at most a minute. */
export const refreshLeadMs = (lifeMs: number): number => Math.min(60_000, lifeMs / 3);
