// Requests over HTTP, with the user's token.

import type { Clock } from "./clock.js";
import { type ErrorBody, ParleyError } from "./errors.js";
import { expiresAtMs, retryAfterMs } from "./retry.js";
import type { TokenSource } from "./types.js";

/** A list as every endpoint answers it. */
export interface Page<T> {
  items: T[];
  next?: string | null;
}

const REQUEST_MS_MAX = 20_000;

export class Rest {
  readonly #base: string;
  readonly #source: TokenSource;
  readonly #fetch: typeof fetch;
  readonly #clock: Clock;
  /** The token of the last request. */
  #token: string | undefined;

  constructor(base: string, source: TokenSource, fetch_: typeof fetch, clock: Clock) {
    this.#base = base;
    this.#source = source;
    this.#fetch = fetch_;
    this.#clock = clock;
  }

  /** A stream of events. */
  stream(path: string, token: string, signal: AbortSignal): Promise<Response> {
    const headers = { accept: "text/event-stream", authorization: `Bearer ${token}` };
    return this.#fetch(this.#base + path, { headers, signal });
  }

  get<T>(path: string): Promise<T> {
    return this.request("GET", path);
  }

  /** All pages of a list, one after the other, given to `take` as they come. It ends early if `take` says true. */
  async pages<T>(path: string, cursor: string, take: (items: T[]) => boolean | undefined): Promise<void> {
    let next: string | null | undefined;
    do {
      const from = next ? `&${cursor}=${encodeURIComponent(next)}` : "";
      const page: Page<T> = await this.get(path + from);
      if (take(page.items)) return;
      next = page.next;
    } while (next);
  }

  /** Rejects with a `ParleyError`. A token that is refused is fetched anew once. */
  async request<T>(method: string, path: string, body?: object): Promise<T> {
    const answer = await this.#once(method, path, body);
    if (answer.status !== 401 || typeof this.#source !== "function") return this.#read(answer);
    this.#token = undefined;
    return this.#read(await this.#once(method, path, body));
  }

  async #once(method: string, path: string, body?: object): Promise<Response> {
    const abort = new AbortController();
    const timer = this.#clock.setTimeout(() => abort.abort(), REQUEST_MS_MAX);
    try {
      const headers: Record<string, string> = { authorization: `Bearer ${await this.#freshToken()}` };
      if (body) headers["content-type"] = "application/json";
      const init = { method, headers, signal: abort.signal, ...(body ? { body: JSON.stringify(body) } : {}) };
      return await this.#fetch(this.#base + path, init);
    } catch (fault) {
      throw fault instanceof ParleyError
        ? fault
        : new ParleyError({ code: "UNAVAILABLE", message: `no answer over HTTP: ${fault}`, retryable: true });
    } finally {
      this.#clock.clearTimeout(timer);
    }
  }

  async #freshToken(): Promise<string> {
    const ends = this.#token === undefined ? 0 : (expiresAtMs(this.#token) ?? Number.POSITIVE_INFINITY);
    if (this.#token === undefined || ends < this.#clock.now() + REQUEST_MS_MAX) {
      const token = typeof this.#source === "function" ? await this.#source() : this.#source;
      if (token === null) throw new ParleyError({ code: "UNAUTHENTICATED", message: "signed out", retryable: false });
      this.#token = token;
    }
    return this.#token;
  }

  async #read<T>(answer: Response): Promise<T> {
    const text = await answer.text();
    let json: unknown;
    try {
      json = text ? JSON.parse(text) : undefined;
    } catch {
      json = undefined;
    }
    if (answer.ok) return json as T;
    const told = (json as { error?: ErrorBody } | undefined)?.error;
    const wait = retryAfterMs(answer.headers.get("retry-after"), this.#clock.now());
    throw new ParleyError({
      code: told?.code ?? (answer.status === 404 ? "NOT_FOUND" : "UNAVAILABLE"),
      message: told?.message ?? `HTTP ${answer.status}`,
      retryable: told?.retryable ?? (answer.status === 429 || answer.status >= 500),
      retryAfterMs: told?.retryAfterMs ?? wait,
      field: told?.field,
    });
  }
}
