// One socket after the other: connecting, keeping alive, refreshing the token, coming back. It knows frames, not chat.

import { type Clock, Timer } from "./clock.js";
import { afterClose, backOffMs, expiresAtMs, refreshLeadMs } from "./retry.js";
import type { ConnectionState, Device, Frame, Socket, SocketClass, TokenSource, Welcome } from "./types.js";

/** The last durable event that was applied. */
export interface Position {
  epoch: string;
  seq: number;
}

export interface ConnectionParts {
  url: string;
  token: TokenSource;
  clock: Clock;
  device: Device;
  WebSocket: SocketClass;
  /** Takes the socket's place where none opens. */
  Stream: SocketClass;
  /** Whether the gateway has streams, as far as it is known. */
  hasStreams(): boolean;
  /** Where to go on from. */
  position(): Position | undefined;
  forgetPosition(): void;
  onState(state: ConnectionState): void;
  onWelcome(welcome: Welcome): void;
  onFrame(frame: Frame): void;
  /** The socket is gone; an answer to what was sent over it can no longer come. */
  onLost(): void;
}

/** For each step: getting a token, opening the socket, `auth_success`. */
const STEP_MS_MAX = 10_000;
/** After as many sockets in a row that never opened a stream is tried. */
const UNOPENED_MAX = 2;
/** After a stream that was good for so long a socket is tried again. */
const STREAM_MS_MAX = 600_000;
/** How long a ping may remain without any frame from the gateway. */
const SILENCE_MS_MAX = 10_000;
/** The same when there is a reason to doubt: the network changed, or the page was asleep. */
const DOUBT_MS_MAX = 4_000;
/** A connection that lasted as long as this was a good one: the waits begin anew. */
const GOOD_MS_MIN = 5_000;
/** The longest wait before connecting again when a node asked for it without naming a window. */
const SOON_MS_MAX = 500;
/** Between two tries to refresh a token. */
const REFRESH_RETRY_MS = 5_000;

const OPEN = 1;

export class Connection {
  readonly #parts: ConnectionParts;
  readonly #clock: Clock;
  #state: ConnectionState = { status: "stopped", reason: "not connected yet" };
  #socket: Socket | undefined;
  /** Counts tries, so that what belongs to an earlier one is ignored. */
  #round = 0;
  /** Tries since the last good connection. */
  #tries = 0;
  #wasOnline = false;
  /** Sockets in a row that never opened. */
  #unopened = 0;
  #isStream = false;
  #onlineAtMs: number | undefined;
  #heardAtMs = 0;
  #heartbeatMs = 25_000;
  #retryAtLeastMs = 0;
  /** How far the gateway's clock is ahead of the device's. */
  #skewMs = 0;
  /** The token that the gateway was sent last, while the connection stood. */
  #fresh = "";
  #refusal: string | undefined;
  #unlisten: (() => void) | undefined;
  readonly #retry: Timer;
  readonly #deadline: Timer;
  readonly #watchdog: Timer;
  readonly #refresh: Timer;
  readonly #move: Timer;

  constructor(parts: ConnectionParts) {
    this.#parts = parts;
    this.#clock = parts.clock;
    this.#retry = new Timer(parts.clock);
    this.#deadline = new Timer(parts.clock);
    this.#watchdog = new Timer(parts.clock);
    this.#refresh = new Timer(parts.clock);
    this.#move = new Timer(parts.clock);
  }

  get state(): ConnectionState {
    return this.#state;
  }

  get isOnline(): boolean {
    return this.#state.status === "online";
  }

  /** Begins, also after `stopped`. A wait for the next try ends. */
  start(): void {
    if (this.#retry.isSet) return this.#open();
    if (this.#state.status !== "stopped") return;
    this.#tries = 0;
    this.#wasOnline = false;
    this.#unlisten = this.#parts.device.listen((event) => this.#onDevice(event));
    this.#open();
  }

  stop(reason: string, code?: number): void {
    this.#unlisten?.();
    this.#unlisten = undefined;
    this.#drop(1000);
    this.#retry.stop();
    this.#show({ status: "stopped", reason, ...(code === undefined ? {} : { code }) });
  }

  /** Whether the frame was handed to the socket. */
  send(frame: object): boolean {
    const socket = this.#socket;
    if (!this.isOnline || !socket || socket.readyState !== OPEN) return false;
    socket.send(JSON.stringify(frame));
    return true;
  }

  #show(state: ConnectionState): void {
    this.#state = state;
    this.#parts.onState(state);
  }

  #open(): void {
    const round = ++this.#round;
    this.#retry.stop();
    this.#refusal = undefined;
    this.#show({ ...this.#state, ...this.#trying() });
    this.#isStream = this.#unopened >= UNOPENED_MAX && this.#parts.hasStreams();
    this.#step();
    this.#token().then(
      (token) => {
        if (round !== this.#round) return;
        if (token === null) this.stop("signed out");
        else this.#connect(round, token);
      },
      (fault) => {
        if (round === this.#round) this.#lost(1006, `no token: ${fault instanceof Error ? fault.message : fault}`);
      },
    );
  }

  #step(): void {
    this.#deadline.start(STEP_MS_MAX, () => this.#lost(1006, "no answer"));
  }

  #trying(): ConnectionState {
    if (!this.#parts.device.isOnline()) return { status: "offline" };
    return { status: this.#wasOnline || this.#tries > 0 ? "reconnecting" : "connecting" };
  }

  async #token(): Promise<string | null> {
    const { token } = this.#parts;
    return typeof token === "function" ? await token() : token;
  }

  #connect(round: number, token: string): void {
    let socket: Socket;
    this.#step();
    try {
      socket = new (this.#isStream ? this.#parts.Stream : this.#parts.WebSocket)(this.#parts.url, ["chat.v1"]);
    } catch (fault) {
      // The address can't be one of a WebSocket, so no further try can succeed.
      return this.stop(String(fault));
    }
    this.#socket = socket;
    const isCurrent = () => round === this.#round;
    socket.onopen = () => {
      if (!isCurrent()) return;
      this.#step();
      if (!this.#isStream) this.#unopened = -1;
      const resume = this.#parts.position();
      socket.send(JSON.stringify({ type: "auth", payload: resume ? { token, resume } : { token } }));
    };
    socket.onmessage = (event: { data: unknown }) => {
      if (isCurrent() && typeof event.data === "string") this.#receive(event.data, token);
    };
    socket.onclose = (event: { code: number; reason: string }) => {
      if (isCurrent()) this.#lost(event.code, event.reason);
    };
    // A close follows each error.
    socket.onerror = () => {};
  }

  #receive(text: string, token: string): void {
    this.#heardAtMs = this.#clock.now();
    let frame: Frame;
    try {
      frame = JSON.parse(text);
    } catch {
      return this.#lost(1007, "a frame is no JSON");
    }
    switch (frame.type) {
      case "auth_success":
        if (frame.ref === undefined) this.#welcome(frame.payload, token);
        else this.#planRefresh(this.#fresh);
        return;
      case "auth_failed":
        this.#refusal = frame.payload.message;
        if (this.isOnline) this.#refresh.start(REFRESH_RETRY_MS, () => this.#refreshToken());
        return;
      case "goaway":
        return this.#goAway(frame.payload.reconnectWindowMs);
      case "error":
        if (frame.ref === undefined) this.#retryAtLeastMs = frame.payload.retryAfterMs ?? 0;
    }
    if (this.isOnline) this.#parts.onFrame(frame);
  }

  #welcome(welcome: Welcome, token: string): void {
    this.#deadline.stop();
    this.#wasOnline = true;
    this.#onlineAtMs = this.#clock.now();
    this.#retryAtLeastMs = 0;
    this.#heartbeatMs = welcome.heartbeatSeconds * 1_000;
    this.#watch();
    this.#skewMs = Date.parse(welcome.connectedAt) - this.#onlineAtMs;
    this.#planRefresh(token);
    this.#show({ status: "online" });
    this.#parts.onWelcome(welcome);
  }

  // A browser hides the WebSocket's own pings, so a silent connection is told by a ping of ours.
  #watch(): void {
    const quietMs = this.#clock.now() - this.#heardAtMs;
    if (quietMs < this.#heartbeatMs) this.#watchdog.start(this.#heartbeatMs - quietMs, () => this.#watch());
    else this.#probe(SILENCE_MS_MAX);
  }

  #probe(withinMs: number): void {
    const askedAtMs = this.#clock.now();
    this.send({ type: "ping", payload: { timestamp: askedAtMs } });
    const heardBefore = this.#heardAtMs;
    this.#watchdog.start(withinMs, () => {
      if (this.#heardAtMs >= askedAtMs && this.#heardAtMs !== heardBefore) this.#watch();
      else this.#lost(1006, "silence");
    });
  }

  #planRefresh(token: string): void {
    const endsAtMs = expiresAtMs(token);
    if (endsAtMs === undefined || typeof this.#parts.token !== "function") return;
    const lifeMs = Math.max(0, endsAtMs - this.#clock.now() - this.#skewMs);
    this.#refresh.start(Math.max(lifeMs - refreshLeadMs(lifeMs), 1_000), () => this.#refreshToken());
  }

  #refreshToken(): void {
    const round = this.#round;
    // Until the answer has come.
    this.#refresh.start(REFRESH_RETRY_MS, () => this.#refreshToken());
    this.#token().then(
      (token) => {
        if (round !== this.#round) return;
        if (token === null) return this.stop("signed out");
        this.#fresh = token;
        this.send({ type: "auth", payload: { token }, ref: "token" });
      },
      () => {}, // The timer above tries again, until the gateway ends the connection.
    );
  }

  #goAway(windowMs: number): void {
    this.#move.start(this.#clock.random() * windowMs, () => this.#lost(4200, "draining"));
  }

  #onDevice(event: "online" | "offline" | "wake"): void {
    if (this.isOnline) this.#probe(DOUBT_MS_MAX);
    else if (event === "offline") this.#show({ ...this.#state, ...this.#trying() });
    else if (this.#retry.isSet) this.#open();
  }

  /** Forgets the socket; nothing that it still says is heard. */
  #drop(code: number): void {
    this.#round += 1;
    for (const timer of [this.#deadline, this.#watchdog, this.#refresh, this.#move]) timer.stop();
    const socket = this.#socket;
    this.#socket = undefined;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    try {
      socket.close(code);
    } catch {
      // It was closed already.
    }
    this.#parts.onLost();
  }

  #lost(code: number, reason: string): void {
    const refusal = this.#refusal;
    const lastedMs = this.#onlineAtMs === undefined ? 0 : this.#clock.now() - this.#onlineAtMs;
    if (!this.#isStream) this.#unopened += this.#socket ? 1 : 0;
    // One socket decides whether a stream that failed, or was good for long, is followed by another.
    else if (!this.#onlineAtMs || lastedMs >= STREAM_MS_MAX) this.#unopened = UNOPENED_MAX - 1;
    this.#onlineAtMs = undefined;
    if (lastedMs >= GOOD_MS_MIN) this.#tries = 0;
    this.#drop(1000);
    const { step } = afterClose(code);
    if (step === "stop") return this.stop(reason || refusal || "refused", code);
    if (step === "freshToken" && typeof this.#parts.token !== "function") return this.stop("token_expired", code);
    if (step === "forgetPosition") this.#parts.forgetPosition();
    const waitMs = this.#waitMs(step === "backOff" ? undefined : step === "soon" ? SOON_MS_MAX : 0);
    this.#retryAtLeastMs = 0;
    this.#tries += 1;
    // A device without a network waits no longer than others: what it says may be wrong, as on a machine that has no way but
    // to itself or through a tunnel.
    this.#show({
      status: this.#parts.device.isOnline() ? "reconnecting" : "offline",
      code,
      reason: refusal || reason,
      retryAtMs: this.#clock.now() + waitMs,
    });
    this.#retry.start(waitMs, () => this.#open());
  }

  /** `soonMs`: the close code allows to come back within this time, the first time. */
  #waitMs(soonMs: number | undefined): number {
    const random = this.#clock.random();
    if (soonMs !== undefined && this.#tries === 0) return this.#retryAtLeastMs + random * soonMs;
    return backOffMs(this.#tries, random, this.#retryAtLeastMs);
  }
}
