// Clients in Node and pages in Chromium on two nodes behind HAProxy, while nodes, Redis and PostgreSQL are killed and frozen:
// each message that one wrote is in every other client's state, and in every page, once and in order. `tests/two-nodes.sh`
// starts the nodes.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { chromium, type Page } from "playwright-core";
import type { Conversation, Parley } from "../../src/index.js";
import { memory } from "../../src/storage.js";
import { backend, mint, online, open, Program, sleep, startNode, until } from "../support/nodes.js";
import { servePage } from "../support/pages.js";

const { URL: url, NODE_1_PID, NODE_2_PID, REDIS_PID, REDIS_PORT, NODE_1, NODE_1_OPS, NODE_2, NODE_2_OPS } = process.env;
const { PAGE_PORT, POSTGRES_PID_FILE = "", POSTGRES_RESTART = "" } = process.env;
/** Faults come one after the other, from the list's beginning again, until the time is over. */
const LOAD_MS = Number(process.env.SECONDS_OF_LOAD ?? 20) * 1_000;
const SETTLE_MS_MAX = 180_000;
const PAUSE_MS = 3_000;
const USERS = ["alice", "bob", "carol"];
const skip = url ? false : "needs the nodes that tests/two-nodes.sh starts";
const drain = { DRAIN_DELAY_SECONDS: "1", DRAIN_SECONDS: "3" };
const ports = (http?: string, ops?: string) => ({ HTTP_PORT: http?.split(":")[1] ?? "", OPS_PORT: ops ?? "" });

interface Device {
  user: string;
  name: string;
  parley: Parley;
}

/** A page that shows the group. */
interface Window {
  name: string;
  page: Page;
}

/** A node, and how to start it anew on its ports. */
interface Served {
  pid: number;
  http: string | undefined;
  ops: string | undefined;
}

const programs: Program[] = [];
const nodes: Served[] = [
  { pid: Number(NODE_1_PID), http: NODE_1, ops: NODE_1_OPS },
  { pid: Number(NODE_2_PID), http: NODE_2, ops: NODE_2_OPS },
];
let redisPid = Number(REDIS_PID);

async function startAgain(node: Served): Promise<void> {
  const { program } = await startNode("serve", { ...ports(node.http, node.ops), ...drain });
  programs.push(program);
  node.pid = program.child.pid ?? 0;
}

async function kill(node: Served): Promise<void> {
  process.kill(node.pid, "SIGKILL");
  await sleep(2_000);
  await startAgain(node);
}

async function freeze(pids: number[], ms: number): Promise<void> {
  for (const pid of pids) process.kill(pid, "SIGSTOP");
  await sleep(ms);
  for (const pid of pids) {
    try {
      process.kill(pid, "SIGCONT");
    } catch {
      // A process of PostgreSQL that has ended meanwhile.
    }
  }
}

/** The server and its children. */
function postgres(): number[] {
  const lines = (command: string, words: string[]) => execFileSync(command, words, { encoding: "utf8" }).split("\n");
  const pid = Number(lines("head", ["-n", "1", POSTGRES_PID_FILE])[0]);
  return [
    pid,
    ...lines("pgrep", ["-P", `${pid}`])
      .filter(Boolean)
      .map(Number),
  ];
}

const FAULTS: [string, () => Promise<void>][] = [
  ["node 1 is killed", () => kill(nodes[0] as Served)],
  ["Redis is frozen", () => freeze([redisPid], 5_000)],
  ["node 2 is frozen", () => freeze([(nodes[1] as Served).pid], 12_000)],
  [
    "Redis is killed",
    async () => {
      process.kill(redisPid, "SIGKILL");
      await sleep(2_000);
      const words = ["--port", REDIS_PORT ?? "", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
      const redis = new Program("redis-server", words);
      programs.push(redis);
      redisPid = redis.child.pid ?? 0;
    },
  ],
  ["PostgreSQL is frozen", () => freeze(postgres(), 5_000)],
  [
    "node 2 is drained, and another one takes its place",
    async () => {
      process.kill((nodes[1] as Served).pid, "SIGTERM");
      await sleep(6_000);
      await startAgain(nodes[1] as Served);
    },
  ],
  ["PostgreSQL is killed", async () => void execFileSync("bash", [POSTGRES_RESTART], { stdio: "ignore" })],
];

const conversationsOf = ({ user, parley }: Device): Conversation[] => [
  parley.group("room"),
  ...USERS.filter((other) => other !== user).map((other) => parley.direct(other)),
];

test("nodes, Redis and PostgreSQL are killed and frozen: no client and no page loses, doubles or swaps a message", {
  skip,
}, async () => {
  const at = url as string;
  const pages = await servePage(Number(PAGE_PORT));
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
  });
  const devices: Device[] = [];
  let isOver = false;
  try {
    await backend(at, "POST", "/api/v1/conversations", { id: "room", kind: "group", title: "Room", members: USERS });
    for (const name of ["alice 1", "alice 2", "bob 1", "carol 1"]) {
      const user = name.split(" ")[0] as string;
      devices.push({ user, name, parley: open(at, user, { storage: memory() }) });
    }
    for (const device of devices)
      for (const conversation of conversationsOf(device)) conversation.messages.subscribe(() => {});
    await online(...devices.map(({ parley }) => parley));
    const windows: Window[] = [];
    for (const name of ["alice 3", "alice 4", "bob 2", "carol 2"]) {
      const page = await (await browser.newContext()).newPage();
      const query = new URLSearchParams({ gateway: at, token: mint(name.split(" ")[0] as string), group: "room" });
      await page.goto(`${pages.url}/?${query}`);
      await page.locator("body[data-status=online]").waitFor({ state: "attached" });
      windows.push({ name, page });
    }

    const written: string[] = [];
    const failed: string[] = [];
    const unanswered = new Set<string>();
    const sent = (text: string, stored: Promise<unknown>) => {
      written.push(text);
      unanswered.add(text);
      stored.then(
        () => unanswered.delete(text),
        (fault) => failed.push(`${text}: ${fault}`),
      );
    };
    const write = async (name: string, send: (text: string, count: number) => Promise<unknown>) => {
      for (let count = 0; !isOver; count += 1) {
        const text = `${name} ${count}`;
        sent(text, send(text, count));
        await sleep(200 + Math.random() * 400);
      }
    };
    const writers = [
      ...devices.map((device) => {
        const targets = conversationsOf(device);
        return write(device.name, (text, count) => (targets[count % targets.length] as Conversation).send(text));
      }),
      ...windows.map(({ name, page }) =>
        write(name, (text) => page.evaluate(`conversation.send(${JSON.stringify(text)}).then(() => true)`)),
      ),
    ];

    const endMs = Date.now() + LOAD_MS;
    for (let turn = 0; turn < FAULTS.length || Date.now() < endMs; turn += 1) {
      await sleep(PAUSE_MS);
      const [name, happen] = FAULTS[turn % FAULTS.length] as (typeof FAULTS)[number];
      console.log(name);
      await happen();
    }
    await sleep(PAUSE_MS);
    isOver = true;
    await Promise.all(writers);

    const rooms = new Map<string, string[]>();
    const total = async () => {
      const lines = [`${unanswered.size} of ${written.length} unanswered, ${failed.slice(0, 5)}`, `${[...unanswered]}`];
      for (const { name, parley } of devices) lines.push(`${name}: ${JSON.stringify(parley.connection.get())}`);
      for (const { name, page } of windows) {
        const report = await page.evaluate("report()").catch((fault) => String(fault));
        lines.push(`${name}: ${JSON.stringify(report).slice(0, 2_000)}`);
      }
      for (const { said } of programs) lines.push(`a program: ${said.slice(-1_500)}`);
      return lines.join("\n");
    };
    await until(() => unanswered.size === 0, total, SETTLE_MS_MAX);
    for (const device of devices) {
      for (const conversation of conversationsOf(device)) {
        const id = conversation.id as string;
        if (!rooms.has(id)) rooms.set(id, await history(at, id));
        const shown = () => conversation.messages.get().map(({ seq, content }) => `${seq} ${content}`);
        await same(`${device.name} in ${id}`, rooms.get(id) as string[], async () => shown());
      }
    }
    const all = [...rooms.values()].flat().map((line) => line.slice(line.indexOf(" ") + 1));
    assert.deepEqual(all.slice().sort(), written.slice().sort(), "each is stored once");
    for (const lines of rooms.values()) {
      for (const { name } of [...devices, ...windows]) {
        const counts = lines.filter((line) => line.includes(` ${name} `)).map((line) => Number(line.split(" ").at(-1)));
        const ascending = counts.slice().sort((a, b) => a - b);
        assert.deepEqual(counts, ascending, `the order of ${name}`);
      }
    }
    const room = (rooms.get("room") ?? []).map((line) => line.slice(line.indexOf(" ") + 1));
    for (const { name, page } of windows) {
      await same(`the page of ${name}`, room, () => page.locator("li").allTextContents());
      const unstored = page.locator("li[data-status=sending], li[data-status=failed]");
      await same(`${name}, of what is not stored,`, [], () => unstored.allTextContents());
    }
    const what = `${written.length} messages in ${rooms.size} conversations`;
    console.log(`${what}, shown by ${devices.length} clients and ${windows.length} pages`);
  } finally {
    isOver = true;
    for (const { parley } of devices) parley.close();
    await browser.close();
    pages.stop();
    for (const program of programs) await program.stop("SIGKILL");
  }
});

/** Waits until these lines are shown, each once and in this order. */
async function same(name: string, stored: string[], read: () => Promise<string[]>): Promise<void> {
  let shown: string[] = [];
  const told = () => {
    const missing = stored.filter((line) => !shown.includes(line));
    const first = stored.findIndex((line, at) => line !== shown[at]);
    const about = `missing: ${missing.slice(0, 5)}; first difference at ${first}: ${stored[first]}, ${shown[first]}`;
    return `${name} shows ${shown.length} of ${stored.length}; ${about}`;
  };
  const isSame = async () => {
    shown = await read();
    return JSON.stringify(shown) === JSON.stringify(stored);
  };
  await until(isSame, told, SETTLE_MS_MAX);
}

/** All messages as the store has them. */
async function history(at: string, id: string): Promise<string[]> {
  const lines: string[] = [];
  for (let after = 0; ; ) {
    const path = `/api/v1/conversations/${encodeURIComponent(id)}/messages?limit=100&after=${after}`;
    const { items } = (await backend(at, "GET", path)) as { items: { seq: number; content: string }[] };
    for (const { seq, content } of items) lines.push(`${seq} ${content}`);
    after = items.at(-1)?.seq ?? after;
    if (items.length < 100) return lines;
  }
}
