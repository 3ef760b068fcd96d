// A stream of events and REST behind the face of a WebSocket, for networks through which WebSockets don't get.

import type { Clock } from "./clock.js";
import type { ErrorBody, ParleyError } from "./errors.js";
import type { Rest } from "./rest.js";
import type { Socket, SocketClass } from "./types.js";

/** A command as the client sends it over a socket. */
interface Command {
  type: string;
  ref?: string;
  // biome-ignore lint/suspicious/noExplicitAny: the client's own commands, whose payloads their senders know.
  payload: any;
}

/** The gateway sends a line every 15 s. */
const SILENCE_MS_MAX = 20_000;

/** The answer's `new` makes a stream in place of a socket, whatever the URL. */
export function streamClass(rest: Rest, clock: Clock): SocketClass {
  return class implements Socket {
    readyState = 0;
    onopen: Socket["onopen"] = null;
    onmessage: Socket["onmessage"] = null;
    onclose: Socket["onclose"] = null;
    onerror: Socket["onerror"] = null;
    readonly #abort = new AbortController();
    #heardAtMs = 0;

    constructor() {
      queueMicrotask(() => {
        this.readyState = 1;
        this.onopen?.({} as never);
      });
    }

    send(text: string): void {
      const command: Command = JSON.parse(text);
      const { type, ref, payload } = command;
      if (type === "auth") {
        if (ref === undefined) void this.#open(payload.token, payload.resume);
        // A stream can't take a fresh token. It ends with its own, and the next one goes on from there.
        else this.#tell({ type: "auth_success", ref, payload: {} });
      } else if (type === "ping") {
        if (clock.now() - this.#heardAtMs < SILENCE_MS_MAX) this.#tell({ type: "pong", payload });
      } else {
        void this.#carryOut(command);
      }
    }

    close(): void {
      this.readyState = 3;
      this.#abort.abort();
    }

    async #open(token: string, resume?: { epoch: string; seq: number }): Promise<void> {
      try {
        const since = resume ? `?since=${encodeURIComponent(`${resume.epoch}:${resume.seq}`)}` : "";
        const answer = await rest.stream(`/api/v1/events${since}`, token, this.#abort.signal);
        if (answer.ok) await this.#read(answer);
        else await this.#refused(answer);
      } catch (fault) {
        this.#end(1006, String(fault));
      }
    }

    async #read({ body }: Response): Promise<void> {
      const reader = body?.getReader();
      if (!reader) throw new TypeError("fetch has no streams here");
      const decoder = new TextDecoder();
      for (let rest = ""; ; ) {
        const { value, done } = await reader.read();
        if (done) return this.#end(1006, "the stream has ended");
        this.#heardAtMs = clock.now();
        const blocks = (rest + decoder.decode(value, { stream: true })).split("\n\n");
        rest = blocks.pop() ?? "";
        for (const line of blocks.flatMap((block) => block.split("\n"))) this.#take(line);
      }
    }

    #take(line: string): void {
      if (line.startsWith("data: ")) this.onmessage?.({ data: line.slice(6) } as never);
      else if (line.startsWith(":")) this.#tell({ type: "pong", payload: {} });
      else if (line.startsWith("retry: ")) {
        const wait = { code: "UNAVAILABLE", message: "later", retryable: true, retryAfterMs: Number(line.slice(7)) };
        this.#tell({ type: "error", payload: wait });
      }
    }

    /** What would be in vain tomorrow, too, ends like a socket that was refused for good. */
    async #refused(answer: Response): Promise<void> {
      const { error } = (await answer.json().catch(() => ({}))) as { error?: ErrorBody };
      const isExpired = error?.code === "TOKEN_EXPIRED";
      const code = answer.status === 401 ? (isExpired ? 4300 : 4001) : answer.status === 403 ? 4003 : 1006;
      this.#end(code, error?.message ?? `HTTP ${answer.status}`);
    }

    async #carryOut({ type, ref, payload }: Command): Promise<void> {
      try {
        const frame = await answerTo(type, payload);
        if (frame) this.#tell({ ...frame, ref });
      } catch (fault) {
        // An error's message is none of the fields that a copy takes.
        this.#tell({ type: "error", ref, payload: { ...(fault as ParleyError), message: (fault as Error).message } });
      }
    }

    #tell(frame: object): void {
      this.onmessage?.({ data: JSON.stringify(frame) } as never);
    }

    #end(code: number, reason: string): void {
      this.close();
      this.onclose?.({ code, reason } as never);
    }
  };

  /** Carries out a command by REST. Typing and receipts of arrival have no endpoint: others do without them. */
  async function answerTo(type: string, payload: Command["payload"]): Promise<object | undefined> {
    const id = encodeURIComponent;
    switch (type) {
      case "message.send": {
        const { message } = await rest.request<{ message: object }>("POST", "/api/v1/messages", payload);
        return { type: "message.sent", payload: { message, tempId: payload.tempId } };
      }
      case "message.read":
        await rest.request("POST", `/api/v1/conversations/${id(payload.conversationId)}/read`, { upTo: payload.upTo });
        return { type: "message.read_ack", payload };
      case "presence.query":
        return { type: "status.bulk", payload: await rest.get(`/api/v1/presence?users=${payload.userIds.map(id)}`) };
    }
    return undefined;
  }
}
