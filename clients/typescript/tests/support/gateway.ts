// A gateway in memory, as PROTOCOL.md tells of it, with the faults that a network has: it loses connections, answers and
// requests, delays and doubles events, cuts its logs and forgets them. What it stored is the truth to compare with.

import type { Clock } from "../../src/clock.js";
import type { ConversationFrame, MessageFrame, Options, Socket } from "../../src/types.js";

/** A frame as a test writes it: gateways add fields in the course of time, which are of no concern here. */
export interface Told {
  type: string;
  payload: object;
  seq?: number;
  ref?: string | number;
}

interface Log {
  epoch: string;
  first: number;
  frames: Told[];
}

interface Room {
  frame: ConversationFrame;
  messages: MessageFrame[];
  unread: Map<string, number>;
}

interface Asked {
  type: string;
  payload: Record<string, never> & { [key: string]: string };
  ref?: string | number;
}

/** Chances from 0 to 1 of each fault; all 0 at first. */
export class Faults {
  refuseSocket = 0;
  cutOnSend = 0;
  cutAfterCommit = 0;
  retryableError = 0;
  repeatEvent = 0;
  failRequest = 0;
  publishDelayMsMax = 0;
}

export class FakeGateway {
  readonly faults = new Faults();
  readonly rooms = new Map<string, Room>();
  readonly sockets = new Set<FakeSocket>();
  /** Each request over HTTP: method and path. */
  readonly requests: string[] = [];
  /** Each command: the type and its payload. */
  readonly commands: { user: string; type: string; payload: Record<string, unknown> }[] = [];
  /** The payload of each `auth` frame. */
  readonly auths: { token: string; resume?: { epoch: string; seq: number } }[] = [];
  readonly clock: Clock;
  latencyMs = 5;
  heartbeatSeconds = 25;
  /** An older gateway tells none. */
  features: string[] | undefined;
  /** What stands in the network while it is frozen. */
  #held: (() => void)[] | undefined;
  #logs = new Map<string, Log>();
  #sent = new Map<string, MessageFrame>();
  #ids = 0;
  #epochs = 0;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  get isFrozen(): boolean {
    return this.#held !== undefined;
  }

  /** While it is frozen, the network delivers nothing; afterwards everything in its order, as TCP does. */
  set isFrozen(isFrozen: boolean) {
    const held = isFrozen ? undefined : this.#held;
    this.#held = isFrozen ? (this.#held ?? []) : undefined;
    for (const deliver of held ?? []) deliver();
  }

  deliver(frame: () => void): void {
    if (this.#held) this.#held.push(frame);
    else frame();
  }

  /** The parts of a client's options that lead it here. The token is the user's name. */
  options(user: string): Options {
    const gateway = this;
    class UserSocket extends FakeSocket {
      constructor(_url: string, _protocols: string[]) {
        super(gateway);
      }
    }
    return {
      token: () => user,
      clock: this.clock,
      WebSocket: UserSocket,
      fetch: ((url: string, init: RequestInit) => this.#fetch(url, init)) as unknown as typeof fetch,
      device: { isOnline: () => true, listen: () => () => {} },
    };
  }

  room(id: string, kind: "direct" | "group" | "channel", users: string[]): Room {
    const known = this.rooms.get(id);
    if (known) return known;
    const room: Room = {
      frame: {
        id,
        kind,
        visibility: "private",
        hasPassword: false,
        createdAt: this.#time(),
        lastSeq: 0,
        rev: 0,
        memberCount: users.length,
        members: users.map((userId) => ({ userId, role: "member", readSeq: 0 })),
      },
      messages: [],
      unread: new Map(),
    };
    this.rooms.set(id, room);
    for (const user of users)
      this.#append(user, { type: "conversation.created", payload: { conversation: this.#seen(room, user) } });
    return room;
  }

  /** Stores a message and tells everybody. */
  say(
    sender: string,
    target: { conversationId?: string; to?: string },
    content: string,
    tempId?: string,
    replyTo?: string,
  ): MessageFrame {
    const id = target.conversationId ?? ["direct", ...[sender, target.to ?? ""].sort()].join(":");
    const room = this.rooms.get(id) ?? this.room(id, "direct", [sender, target.to ?? ""].sort());
    const { frame } = room;
    frame.lastSeq += 1;
    frame.rev += 1;
    const message: MessageFrame = {
      id: String(++this.#ids),
      conversationId: id,
      seq: frame.lastSeq,
      rev: frame.rev,
      senderId: sender,
      kind: "text",
      content,
      createdAt: this.#time(),
      ...(tempId ? { tempId } : {}),
      ...(replyTo ? { replyTo } : {}),
    };
    room.messages.push(message);
    if (tempId) this.#sent.set(`${sender} ${tempId}`, message);
    for (const { userId } of frame.members) {
      const told: Told =
        userId === sender
          ? { type: "message.sent", payload: { message, ...(tempId ? { tempId } : {}) } }
          : { type: "message.new", payload: { message } };
      if (userId !== sender) room.unread.set(userId, (room.unread.get(userId) ?? 0) + 1);
      const delayMs = this.clock.random() * this.faults.publishDelayMsMax;
      if (delayMs === 0) this.#append(userId, told);
      else this.clock.setTimeout(() => this.#append(userId, told), delayMs);
    }
    return message;
  }

  edit(message: MessageFrame, content: string): void {
    this.#change(
      message.id,
      (now) => ({ ...now, content, editedAt: this.#time() }),
      (changed) => ({
        type: "message.edited",
        payload: { message: changed },
      }),
    );
  }

  delete(message: MessageFrame): void {
    this.#change(
      message.id,
      (now) => ({ ...now, content: "", deletedAt: this.#time() }),
      (changed) => ({
        type: "message.deleted",
        payload: {
          messageId: changed.id,
          conversationId: changed.conversationId,
          deletedAt: changed.deletedAt ?? "",
          rev: changed.rev,
        },
      }),
    );
  }

  /** Cuts the log of each user; what is left is the end. */
  trim(): void {
    for (const log of this.#logs.values()) {
      log.first += log.frames.length;
      log.frames = [];
    }
  }

  /** Forgets all logs, as Redis does that came back empty, and tells whoever is connected. */
  forget(): void {
    this.#logs.clear();
    for (const socket of this.sockets) {
      if (socket.user === undefined) continue;
      const log = this.log(socket.user);
      socket.position = this.#end(log);
      socket.push({ type: "resync", payload: { reason: "epoch", epoch: log.epoch, seq: socket.position } });
    }
  }

  cutAll(code = 1006, reason = ""): void {
    for (const socket of [...this.sockets]) socket.end(code, reason);
  }

  /** Sends to each connection of a user. */
  push(user: string, frame: Told): void {
    for (const socket of this.sockets) if (socket.user === user) socket.push(frame);
  }

  log(user: string): Log {
    const known = this.#logs.get(user);
    if (known) return known;
    const log: Log = { epoch: `e${++this.#epochs}`, first: 0, frames: [] };
    this.#logs.set(user, log);
    return log;
  }

  chance(probability: number): boolean {
    return probability > 0 && this.clock.random() < probability;
  }

  receive(socket: FakeSocket, asked: Asked): void {
    const { type, payload, ref } = asked;
    if (type === "auth") return this.#authenticate(socket, payload as never, ref);
    const user = socket.user;
    if (user === undefined) return;
    this.commands.push({ user, type, payload });
    const answer = (frame: Told) => socket.push({ ...frame, ...(ref === undefined ? {} : { ref }) });
    const refuse = (code: string, retryable: boolean, retryAfterMs?: number) =>
      answer({ type: "error", payload: { code, message: code, retryable, ...(retryAfterMs ? { retryAfterMs } : {}) } });
    switch (type) {
      case "ping":
        return answer({ type: "pong", payload: { timestamp: payload.timestamp, serverTime: this.#time() } });
      case "message.send": {
        if (this.chance(this.faults.cutOnSend)) return socket.end(1006);
        const before = this.#sent.get(`${user} ${payload.tempId}`);
        if (before)
          return answer({
            type: "message.sent",
            payload: { tempId: payload.tempId, message: before, duplicate: true },
          });
        if (payload.content === "refuse me") return refuse("BLOCKED", false);
        if (this.chance(this.faults.retryableError)) return refuse("RATE_LIMITED", true, 200);
        this.say(user, payload, payload.content ?? "", payload.tempId, payload.replyTo);
        if (this.chance(this.faults.cutAfterCommit)) socket.end(1006);
        return;
      }
      case "presence.query": {
        const users = payload.userIds as unknown as string[];
        const online = (id: string) => [...this.sockets].some((other) => other.user === id);
        return answer({
          type: "status.bulk",
          payload: { users: Object.fromEntries(users.map((id) => [id, { online: online(id) }])) },
        });
      }
      case "message.read": {
        const room = this.rooms.get(payload.conversationId ?? "");
        room?.unread.set(user, 0);
        this.#append(user, {
          type: "message.read_ack",
          payload: { conversationId: payload.conversationId ?? "", markedCount: 1, readAt: this.#time() },
        });
        return;
      }
    }
  }

  /** Sends what follows the socket's position. */
  flush(socket: FakeSocket): void {
    if (socket.user === undefined) return;
    const log = this.log(socket.user);
    for (;;) {
      const frame = log.frames[socket.position - log.first];
      if (!frame) return;
      socket.position += 1;
      socket.push(frame);
      if (this.chance(this.faults.repeatEvent)) socket.push(frame);
    }
  }

  #authenticate(
    socket: FakeSocket,
    auth: { token: string; resume?: { epoch: string; seq: number } },
    ref?: string | number,
  ): void {
    this.auths.push(auth);
    const { token, resume } = auth;
    const user = (token.split(".")[2] ?? token).replace(/!$/, "");
    const log = this.log(user);
    const isSame = resume?.epoch === log.epoch;
    const resumed = resume !== undefined && isSame && resume.seq >= log.first && resume.seq <= this.#end(log);
    if (ref === undefined) socket.position = resumed ? resume.seq : this.#end(log);
    socket.user = user;
    socket.push({
      type: "auth_success",
      payload: {
        userId: user,
        connectionId: "c",
        connectedAt: this.#time(),
        epoch: log.epoch,
        seq: socket.position,
        resumed: resumed || ref !== undefined,
        heartbeatSeconds: this.heartbeatSeconds,
        ...(this.features ? { features: this.features } : {}),
      },
      ...(ref === undefined ? {} : { ref }),
    });
    if (ref !== undefined) return;
    if (resume && !resumed) {
      const reason = isSame ? "trimmed" : "epoch";
      socket.push({ type: "resync", payload: { reason, epoch: log.epoch, seq: socket.position } });
    }
    this.flush(socket);
  }

  #append(user: string, frame: Told): void {
    const log = this.log(user);
    log.frames.push({ ...frame, seq: this.#end(log) + 1 });
    for (const socket of this.sockets) if (socket.user === user) this.flush(socket);
  }

  #end(log: Log): number {
    return log.first + log.frames.length;
  }

  #change(id: string, change: (message: MessageFrame) => MessageFrame, told: (message: MessageFrame) => Told): void {
    for (const room of this.rooms.values()) {
      const at = room.messages.findIndex((message) => message.id === id);
      const message = room.messages[at];
      if (!message) continue;
      room.frame.rev += 1;
      const changed = { ...change(message), rev: room.frame.rev };
      room.messages[at] = changed;
      for (const { userId } of room.frame.members) this.#append(userId, told(changed));
    }
  }

  #seen(room: Room, user: string): ConversationFrame {
    const last = room.messages.at(-1);
    return { ...room.frame, unread: room.unread.get(user) ?? 0, ...(last ? { lastMessage: last } : {}) };
  }

  #time(): string {
    return new Date(this.clock.now()).toISOString();
  }

  async #fetch(url: string, init: RequestInit): Promise<Response> {
    const { pathname, searchParams } = new URL(url);
    this.requests.push(`${init.method} ${pathname}${new URL(url).search}`);
    await new Promise<void>((resolve) => this.clock.setTimeout(resolve, this.latencyMs * (1 + this.clock.random())));
    if (this.chance(this.faults.failRequest)) {
      if (this.chance(0.5)) throw new TypeError("fetch failed");
      return Response.json({ error: { code: "UNAVAILABLE", message: "away", retryable: true } }, { status: 503 });
    }
    const user = (new Headers(init.headers).get("authorization") ?? "").replace("Bearer ", "").replace(/!$/, "");
    const answer = this.#answer(pathname, searchParams, user);
    // The answer is as the store was; it takes its time to arrive.
    const response =
      answer === undefined
        ? Response.json({ error: { code: "NOT_FOUND", message: "none", retryable: false } }, { status: 404 })
        : Response.json(answer);
    await new Promise<void>((resolve) => this.clock.setTimeout(resolve, this.latencyMs * (1 + this.clock.random())));
    return response;
  }

  #answer(pathname: string, query: URLSearchParams, user: string): object | undefined {
    const [, , , kind, id, what] = pathname.split("/").map(decodeURIComponent);
    if (kind !== "conversations") return undefined;
    const isMember = (room: Room) => room.frame.members.some(({ userId }) => userId === user);
    if (id === undefined) {
      return { items: [...this.rooms.values()].filter(isMember).map((room) => this.#seen(room, user)) };
    }
    const room = this.rooms.get(id);
    if (!room || !isMember(room)) return undefined;
    if (what !== "messages") return this.#seen(room, user);
    const limit = Number(query.get("limit") ?? 50);
    const [before, after, since] = ["before", "after", "changedSince"].map((name) => query.get(name));
    let items = room.messages;
    if (before) items = items.filter(({ seq }) => seq < Number(before)).slice(-limit);
    else if (after) items = items.filter(({ seq }) => seq > Number(after)).slice(0, limit);
    else if (since)
      items = items
        .filter(({ rev }) => rev > Number(since))
        .sort((a, b) => a.rev - b.rev)
        .slice(0, limit);
    else items = items.slice(-limit);
    const edge = since ? items.at(-1)?.rev : after ? items.at(-1)?.seq : items[0]?.seq;
    return { items, ...(items.length === limit ? { next: String(edge) } : {}) };
  }
}

export class FakeSocket implements Socket {
  readyState = 0;
  onopen: ((event: never) => unknown) | null = null;
  onmessage: ((event: never) => unknown) | null = null;
  onclose: ((event: never) => unknown) | null = null;
  onerror: ((event: never) => unknown) | null = null;
  user: string | undefined;
  position = 0;
  #lastMs = 0;
  readonly #gateway: FakeGateway;

  constructor(gateway: FakeGateway) {
    this.#gateway = gateway;
    this.#later(() => {
      if (gateway.chance(gateway.faults.refuseSocket)) return this.end(1006);
      this.readyState = 1;
      gateway.sockets.add(this);
      this.onopen?.({} as never);
    });
  }

  send(text: string): void {
    if (this.readyState !== 1) throw new Error("the socket is not open");
    const receive = () => {
      if (this.readyState === 1) this.#gateway.receive(this, JSON.parse(text));
    };
    this.#later(() => this.#gateway.deliver(receive));
  }

  push(frame: Told): void {
    const data = JSON.stringify(frame);
    const receive = () => {
      if (this.readyState === 1) this.onmessage?.({ data } as never);
    };
    this.#later(() => this.#gateway.deliver(receive));
  }

  close(): void {
    this.end(1000);
  }

  end(code: number, reason = ""): void {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.#gateway.sockets.delete(this);
    this.#gateway.clock.setTimeout(() => this.onclose?.({ code, reason } as never), 0);
  }

  // In order, also when the network has become faster meanwhile.
  #later(task: () => void): void {
    const now = this.#gateway.clock.now();
    this.#lastMs = Math.max(this.#lastMs, now + this.#gateway.latencyMs);
    this.#gateway.clock.setTimeout(task, this.#lastMs - now);
  }
}
