// What stands between a client and a gateway: a network that can be cut, and a proxy that breaks WebSockets.

import { createServer as createHttpServer, request, type Server } from "node:http";
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from "node:net";
import type { Duplex } from "node:stream";

/** A way to the gateway that can be cut. */
export class Network {
  readonly #sockets = new Set<Socket>();
  readonly #server = createTcpServer((from) => this.#pass(from));
  #isCut = false;
  #passed = 0;
  #refused = 0;

  constructor(readonly to: number) {}

  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get told(): string {
    const now = `${this.#isCut ? "cut" : "whole"}, ${this.#sockets.size} sockets`;
    return `network: ${now}, ${this.#passed} passed, ${this.#refused} refused`;
  }

  cut(isCut: boolean): void {
    this.#isCut = isCut;
    if (isCut) for (const socket of this.#sockets) socket.destroy();
  }

  stop(): void {
    this.cut(true);
    this.#server.close();
  }

  #pass(from: Socket): void {
    if (this.#isCut) {
      this.#refused += 1;
      from.destroy();
      return;
    }
    this.#passed += 1;
    const to = connect(this.to, "127.0.0.1");
    for (const [socket, other] of [
      [from, to],
      [to, from],
    ] as const) {
      this.#sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        this.#sockets.delete(socket);
        other.destroy();
      });
      socket.pipe(other);
    }
  }
}

/** A proxy for HTTP that doesn't know WebSockets: it passes a request for an upgrade on as a plain one. */
export class PlainProxy {
  /** How many upgrades were asked for, and streams of events. */
  upgrades = 0;
  streams = 0;
  /** Refuses streams, too. */
  breaksStreams = false;
  readonly #sockets = new Set<Duplex>();
  readonly #server: Server;

  constructor(readonly to: number) {
    this.#server = createHttpServer((asked, answer) => {
      const { upgrade, connection, ...headers } = asked.headers;
      if (upgrade) this.upgrades += 1;
      if (headers.accept === "text/event-stream") {
        this.streams += 1;
        if (this.breaksStreams) return void answer.writeHead(502).end();
      }
      const { method, url: path } = asked;
      const onward = request({ host: "127.0.0.1", port: this.to, method, path, headers }, (answered) => {
        answer.writeHead(answered.statusCode ?? 502, answered.headers);
        answer.flushHeaders();
        answered.pipe(answer);
        answered.on("error", () => answer.destroy());
      });
      onward.on("error", () => answer.destroy());
      answer.on("close", () => onward.destroy());
      asked.pipe(onward);
    });
    this.#server.on("connection", (socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
    });
  }

  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  cutAll(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  stop(): void {
    this.#server.close();
    this.cutAll();
  }
}
