// Real gateways for tests: a `gateway dev`, tokens, and clients that lead there.

import { type ChildProcess, spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { createServer } from "node:net";
import { WebSocket } from "ws";
import { type Conversation, type Options, Parley } from "../../src/index.js";
import type { SocketClass } from "../../src/types.js";

/** The package's folder, in which `scripts/test.mjs` runs the tests. */
export const PACKAGE = process.cwd();
const GATEWAY = process.env.GATEWAY ?? `${PACKAGE}/../../target/debug/gateway`;
export const API_KEY = process.env.API_KEY ?? "key-of-the-tests-with-32-characters";
const SECRET = process.env.JWT_SECRET ?? "secret-of-the-tests-with-32-characters";
const READY_MS_MAX = 60_000;

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until `isTrue`; fails with what `told` says. */
export async function until(
  isTrue: () => boolean | Promise<boolean>,
  told: () => string | Promise<string>,
  withinMs = 60_000,
): Promise<void> {
  const endMs = Date.now() + withinMs;
  while (!(await isTrue())) {
    if (Date.now() > endMs) throw new Error(`not within ${withinMs} ms: ${await told()}`);
    await sleep(20);
  }
}

export function mint(user: string, lifeS = 3_600): string {
  const part = (claims: object) => Buffer.from(JSON.stringify(claims)).toString("base64url");
  const now = Math.floor(Date.now() / 1_000);
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub: user, iat: now, exp: now + lifeS })}`;
  return `${signed}.${createHmac("sha256", SECRET).update(signed).digest("base64url")}`;
}

export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() =>
        address && typeof address === "object" ? resolve(address.port) : reject(new Error("no port")),
      );
    });
  });
}

/** A process of the test, with the end of what it said. */
export class Program {
  readonly child: ChildProcess;
  said = "";
  readonly ended: Promise<void>;

  constructor(command: string, words: string[], env: Record<string, string> = {}) {
    this.child = spawn(command, words, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream?.on("data", (bytes) => {
        this.said = (this.said + bytes).slice(-4_000);
      });
    }
    this.ended = new Promise((resolve) => {
      this.child.once("exit", () => resolve());
      this.child.once("error", (fault) => {
        this.said += fault;
        resolve();
      });
    });
  }

  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    this.child.kill(signal);
    await this.ended;
  }
}

export interface Node {
  url: string;
  program: Program;
}

/** Starts a gateway, and waits until it is ready. */
export async function startNode(command: "dev" | "serve", env: Record<string, string> = {}): Promise<Node> {
  const [http, ops] = [env.HTTP_PORT ?? String(await freePort()), env.OPS_PORT ?? String(await freePort())];
  const listeners = { HTTP_HOST: "127.0.0.1", OPS_HOST: "127.0.0.1", HTTP_PORT: http, OPS_PORT: ops };
  const program = new Program(GATEWAY, [command], { JWT_SECRET: SECRET, API_KEY, ...env, ...listeners });
  let isOver = false;
  void program.ended.then(() => {
    isOver = true;
  });
  const ready = async () => {
    if (isOver) throw new Error(`the gateway ended: ${program.said}`);
    return fetch(`http://127.0.0.1:${ops}/readyz`).then(
      ({ ok }) => ok,
      () => false,
    );
  };
  await until(ready, () => program.said, READY_MS_MAX);
  return { url: `http://127.0.0.1:${http}`, program };
}

export function open(url: string, user: string, options: Partial<Options> = {}): Parley {
  return new Parley(url, { token: () => mint(user), WebSocket: WebSocket as unknown as SocketClass, ...options });
}

export const texts = (conversation: Conversation): string[] =>
  conversation.messages.get().map(({ content }) => content);

export async function online(...clients: Parley[]): Promise<void> {
  for (const client of clients) {
    const told = () => JSON.stringify(client.connection.get());
    await until(() => client.connection.get().status === "online" && client.isSynced.get(), told);
  }
}

/** A request of a backend. */
export async function backend(url: string, method: string, path: string, body?: object): Promise<unknown> {
  const headers = { "x-api-key": API_KEY, ...(body ? { "content-type": "application/json" } : {}) };
  const answer = await fetch(url + path, { method, headers, ...(body ? { body: JSON.stringify(body) } : {}) });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
  return text ? JSON.parse(text) : undefined;
}
