// Clients against two nodes behind HAProxy while nodes and Redis are killed: each message that a client wrote is in every
// other client's state once, in order. `tests/two-nodes.sh` starts the nodes.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Conversation, Parley } from "../../src/index.js";
import { memory } from "../../src/storage.js";
import { backend, online, open, Program, sleep, startNode, until } from "../support/nodes.js";

const { URL: url, NODE_1_PID, NODE_2_PID, REDIS_PID, REDIS_PORT, NODE_1, NODE_1_OPS, NODE_2, NODE_2_OPS } = process.env;
const LOAD_MS = Number(process.env.SECONDS_OF_LOAD ?? 20) * 1_000;
const SETTLE_MS_MAX = 120_000;
const skip = url ? false : "needs the nodes that tests/two-nodes.sh starts";

interface Device {
  user: string;
  name: string;
  parley: Parley;
}

const ports = (http?: string, ops?: string) => ({ HTTP_PORT: http?.split(":")[1] ?? "", OPS_PORT: ops ?? "" });
const drain = { DRAIN_DELAY_SECONDS: "1", DRAIN_SECONDS: "3" };

test("nodes and Redis are killed: nothing is lost, doubled or out of order in any client's state", {
  skip,
}, async () => {
  const users = ["alice", "bob", "carol"];
  const at = url as string;
  await backend(at, "POST", "/api/v1/conversations", { id: "room", kind: "group", title: "Room", members: users });
  const devices: Device[] = ["alice 1", "alice 2", "bob 1", "carol 1"].map((name) => {
    const user = name.split(" ")[0] as string;
    return { user, name, parley: open(at, user, { storage: memory() }) };
  });
  const conversationsOf = ({ user, parley }: Device): Conversation[] => [
    parley.group("room"),
    ...users.filter((other) => other !== user).map((other) => parley.direct(other)),
  ];
  for (const device of devices)
    for (const conversation of conversationsOf(device)) conversation.messages.subscribe(() => {});
  await online(...devices.map(({ parley }) => parley));

  const written: string[] = [];
  const failed: string[] = [];
  let acknowledged = 0;
  let isOver = false;
  const write = async (device: Device) => {
    for (let count = 0; !isOver; count += 1) {
      const targets = conversationsOf(device);
      const target = targets[count % targets.length] as Conversation;
      const text = `${device.name} ${count}`;
      written.push(text);
      target.send(text).then(
        () => {
          acknowledged += 1;
        },
        (fault) => failed.push(`${text}: ${fault}`),
      );
      await sleep(20 + Math.random() * 60);
    }
  };
  const writers = devices.map(write);

  const programs: Program[] = [];
  try {
    await sleep(LOAD_MS / 5);
    process.kill(Number(NODE_1_PID), "SIGKILL");
    await sleep(2_000);
    programs.push((await startNode("serve", { ...ports(NODE_1, NODE_1_OPS), ...drain })).program);
    await sleep(LOAD_MS / 5);
    process.kill(Number(REDIS_PID), "SIGKILL");
    await sleep(2_000);
    const redis = ["--port", REDIS_PORT ?? "", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    programs.push(new Program("redis-server", redis));
    await sleep(LOAD_MS / 5);
    process.kill(Number(NODE_2_PID), "SIGTERM");
    await sleep(6_000);
    programs.push((await startNode("serve", { ...ports(NODE_2, NODE_2_OPS), ...drain })).program);
    await sleep((LOAD_MS * 2) / 5);
    isOver = true;
    await Promise.all(writers);

    const rooms = new Map<string, string[]>();
    const total = () => `${acknowledged} of ${written.length} acknowledged, ${failed}`;
    await until(() => acknowledged === written.length, total, SETTLE_MS_MAX);
    for (const device of devices) {
      for (const conversation of conversationsOf(device)) {
        const id = conversation.id as string;
        if (!rooms.has(id)) rooms.set(id, await history(at, id));
        const stored = rooms.get(id) as string[];
        const shown = () => conversation.messages.get().map(({ seq, content }) => `${seq} ${content}`);
        const told = () => {
          const missing = stored.filter((line) => !shown().includes(line));
          return `${device.name} shows ${shown().length} of ${stored.length} in ${id}; missing: ${missing.slice(0, 5)}`;
        };
        await until(() => JSON.stringify(shown()) === JSON.stringify(stored), told, SETTLE_MS_MAX);
      }
    }
    const all = [...rooms.values()].flat().map((line) => line.slice(line.indexOf(" ") + 1));
    assert.deepEqual(all.slice().sort(), written.slice().sort(), "each is stored once");
    for (const lines of rooms.values()) {
      for (const { name } of devices) {
        const counts = lines.filter((line) => line.includes(` ${name} `)).map((line) => Number(line.split(" ").at(-1)));
        assert.deepEqual(
          counts,
          counts.slice().sort((a, b) => a - b),
          `the order of ${name}`,
        );
      }
    }
    console.log(`${written.length} messages in ${rooms.size} conversations, shown by ${devices.length} clients`);
  } finally {
    isOver = true;
    for (const { parley } of devices) parley.close();
    for (const program of programs) await program.stop("SIGKILL");
  }
});

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
