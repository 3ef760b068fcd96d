import assert from "node:assert/strict";
import { test } from "node:test";
import { Parley, ParleyError } from "../../src/index.js";
import { memory } from "../../src/storage.js";
import type { QueueStorage } from "../../src/types.js";
import { FakeClock } from "../support/clock.js";
import { FakeGateway } from "../support/gateway.js";

function world(seed = 1) {
  const clock = new FakeClock(seed);
  const gateway = new FakeGateway(clock);
  const open = (user: string, options: object = {}) => {
    const parley = new Parley("wss://chat.test", { ...gateway.options(user), ...options });
    return parley;
  };
  const stored = () => [...gateway.rooms.values()].flatMap(({ messages }) => messages.map(({ content }) => content));
  return { clock, gateway, open, stored };
}

const contents = (parley: Parley, user: string) =>
  parley
    .direct(user)
    .messages.get()
    .map(({ content, status }) => `${content} ${status}`);

test("send shows at once and resolves when it is stored", async () => {
  const { clock, open } = world();
  const alice = open("alice");
  await clock.advance(1_000);
  const sent = alice.direct("bob").send("Hello");
  assert.deepEqual(contents(alice, "bob"), ["Hello sending"]);
  const [{ key: keyBefore } = { key: "" }] = alice.direct("bob").messages.get();
  await clock.advance(1_000);
  const message = await sent;
  assert.deepEqual([message.content, message.seq, message.status], ["Hello", 1, "stored"]);
  assert.deepEqual(contents(alice, "bob"), ["Hello stored"]);
  assert.equal(alice.direct("bob").messages.get()[0]?.key, keyBefore);
});

test("what is written without a connection waits, and goes in its order", async () => {
  const { clock, gateway, open, stored } = world();
  gateway.faults.refuseSocket = 1;
  const alice = open("alice");
  for (const text of ["one", "two", "three"]) void alice.direct("bob").send(text);
  await clock.advance(60_000);
  assert.deepEqual(contents(alice, "bob"), ["one sending", "two sending", "three sending"]);
  gateway.faults.refuseSocket = 0;
  await clock.advance(60_000);
  assert.deepEqual(stored(), ["one", "two", "three"]);
});

test("a send whose answer was lost is repeated, and stored once", async () => {
  const { clock, gateway, open, stored } = world();
  const alice = open("alice");
  await clock.advance(1_000);
  gateway.faults.cutAfterCommit = 1;
  const sent = alice.direct("bob").send("Hello");
  await clock.advance(100);
  gateway.faults.cutAfterCommit = 0;
  await clock.advance(10_000);
  assert.equal((await sent).content, "Hello");
  assert.deepEqual(stored(), ["Hello"]);
  assert.equal(alice.direct("bob").messages.get().length, 1);
});

test("a send that nobody answers is repeated on the same connection", async () => {
  const { clock, gateway, open, stored } = world();
  const alice = open("alice");
  await clock.advance(1_000);
  gateway.isFrozen = true;
  void alice.direct("bob").send("Hello");
  await clock.advance(1_000);
  gateway.isFrozen = false;
  await clock.advance(20_000);
  assert.deepEqual(stored(), ["Hello"]);
});

test("a refusal shows at the message, and what is behind it goes on", async () => {
  const { clock, open, stored } = world();
  const alice = open("alice");
  await clock.advance(1_000);
  const bob = alice.direct("bob");
  const refused = bob.send("refuse me");
  void bob.send("two");
  await clock.advance(1_000);
  await assert.rejects(
    refused,
    (fault) => fault instanceof ParleyError && fault.code === "BLOCKED" && !fault.retryable,
  );
  assert.deepEqual(contents(alice, "bob"), ["two stored", "refuse me failed"]);
  const failed = bob.messages.get().at(-1);
  assert.equal(failed?.error?.code, "BLOCKED");
  assert.deepEqual(stored(), ["two"]);

  const again = bob.sendAgain(failed?.tempId ?? "");
  assert.deepEqual(contents(alice, "bob"), ["two stored", "refuse me sending"]);
  await clock.advance(1_000);
  await assert.rejects(again);
  bob.drop(failed?.tempId ?? "");
  assert.deepEqual(contents(alice, "bob"), ["two stored"]);
});

test("a refusal that passes is tried again, and the order stays", async () => {
  const { clock, gateway, open, stored } = world();
  const alice = open("alice");
  await clock.advance(1_000);
  gateway.faults.retryableError = 0.7;
  const texts = Array.from({ length: 20 }, (_, at) => `${at}`);
  for (const text of texts) void alice.direct("bob").send(text);
  await clock.advance(120_000);
  assert.deepEqual(stored(), texts);
});

test("five hundred waiting messages stay below the limit of a connection", async () => {
  const { clock, gateway, open, stored } = world();
  gateway.faults.refuseSocket = 1;
  const alice = open("alice");
  for (let at = 0; at < 500; at += 1) void alice.direct(`user${at % 10}`).send(`${at}`);
  await clock.advance(1_000);
  gateway.faults.refuseSocket = 0;
  const sentPerSecond: number[] = [];
  for (let second = 0; second < 60; second += 1) {
    const before = gateway.commands.length;
    await clock.advance(1_000);
    sentPerSecond.push(gateway.commands.length - before);
  }
  assert.equal(stored().length, 500);
  assert.ok(Math.max(...sentPerSecond) <= 62, `${sentPerSecond}`);
});

test("a reload loses nothing: not what waited, not what was on its way, not what was refused", async () => {
  const { clock, gateway, open, stored } = world();
  const storage = memory();
  gateway.faults.refuseSocket = 1;
  const before = open("alice", { storage, userId: "alice" });
  void before.direct("bob").send("waited");
  await clock.advance(100);
  before.close();

  gateway.faults.refuseSocket = 0;
  const second = open("alice", { storage, userId: "alice" });
  await clock.advance(5_000);
  assert.deepEqual(stored(), ["waited"]);
  void second.direct("bob").send("refuse me");
  await clock.advance(1_000);
  gateway.faults.cutAfterCommit = 1;
  void second.direct("bob").send("on its way");
  await clock.advance(8);
  second.close();

  gateway.faults.cutAfterCommit = 0;
  const third = open("alice", { storage, userId: "alice" });
  third.direct("bob").messages.subscribe(() => {});
  await clock.advance(20_000);
  assert.deepEqual(stored(), ["waited", "on its way"]);
  assert.deepEqual(contents(third, "bob"), ["waited stored", "on its way stored", "refuse me failed"]);
});

test("messages are sent only as the user who wrote them", async () => {
  const { clock, gateway, open, stored } = world();
  const storage = memory();
  const alice = open("alice", { storage });
  await clock.advance(1_000);
  gateway.faults.refuseSocket = 1;
  gateway.cutAll();
  void alice.direct("carol").send("from alice");
  await clock.advance(1_000);
  alice.close();
  gateway.faults.refuseSocket = 0;
  const bob = open("bob", { storage });
  await clock.advance(60_000);
  assert.deepEqual(stored(), []);
  bob.close();
  open("alice", { storage });
  await clock.advance(60_000);
  assert.deepEqual(stored(), ["from alice"]);
  assert.equal([...gateway.rooms.values()][0]?.messages[0]?.senderId, "alice");
});

test("a storage that fails doesn't keep a message back", async () => {
  const { clock, open, stored } = world();
  const fail = () => {
    throw new Error("QuotaExceededError");
  };
  const storage: QueueStorage = { getItem: fail, setItem: fail, removeItem: fail, getAllKeys: fail };
  const alice = open("alice", { storage });
  await clock.advance(1_000);
  await Promise.all([alice.direct("bob").send("Hello"), clock.advance(1_000)]);
  assert.deepEqual(stored(), ["Hello"]);
});

test("two clients of one storage send each message once, and both show it", async () => {
  const { clock, gateway, open, stored } = world();
  const storage = memory();
  gateway.faults.refuseSocket = 1;
  const first = open("alice", { storage, userId: "alice" });
  void first.direct("bob").send("one");
  await clock.advance(100);
  const second = open("alice", { storage, userId: "alice" });
  void second.direct("bob").send("two");
  await clock.advance(100);
  gateway.faults.refuseSocket = 0;
  for (const client of [first, second]) client.direct("bob").messages.subscribe(() => {});
  await clock.advance(60_000);
  assert.deepEqual(stored().sort(), ["one", "two"]);
  for (const client of [first, second]) {
    assert.deepEqual(contents(client, "bob").sort(), ["one stored", "two stored"]);
  }
  assert.deepEqual(
    (await storage.getAllKeys()).filter((key) => key.includes("message")),
    [],
  );
});

test("a page that seems to live for ever keeps nothing back: another one sends for it, and its older messages first", async () => {
  const { clock, gateway, open, stored } = world();
  const storage = memory();
  const names = new Set<string>();
  // The lock of another page is never given.
  const request = (name: string, run: () => Promise<void>) => {
    const isOwn = !names.has(name);
    names.add(name);
    return isOwn ? run() : new Promise(() => {});
  };
  const before = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  Object.defineProperty(globalThis, "navigator", { configurable: true, value: { locks: { request } } });
  try {
    gateway.faults.refuseSocket = 1;
    const first = open("alice", { storage, userId: "alice" });
    void first.direct("bob").send("one");
    await clock.advance(100);
    first.close();

    gateway.faults.refuseSocket = 0;
    const second = open("alice", { storage, userId: "alice" });
    void second.direct("bob").send("two");
    await clock.advance(1_000);
    assert.deepEqual(stored(), []);
    await clock.advance(5_000);
    assert.deepEqual(stored(), ["one", "two"]);

    gateway.faults.refuseSocket = 1;
    gateway.cutAll();
    const third = open("alice", { storage, userId: "alice" });
    void third.direct("bob").send("three");
    await clock.advance(100);
    third.close();
    gateway.faults.refuseSocket = 0;
    await clock.advance(90_000);
    assert.deepEqual(stored(), ["one", "two", "three"]);
  } finally {
    if (before) Object.defineProperty(globalThis, "navigator", before);
    else Reflect.deleteProperty(globalThis, "navigator");
  }
});

test("a slow storage puts nothing out of order, and one that hangs keeps nothing back", async () => {
  const { clock, gateway, open, stored } = world();
  const items = memory();
  const late = <T>(run: () => T, ms: number) => new Promise<T>((resolve) => clock.setTimeout(() => resolve(run()), ms));
  const slow: QueueStorage = {
    getItem: (key) => late(() => items.getItem(key), 1_500),
    setItem: (key, value) => late(() => items.setItem(key, value), 1_500),
    removeItem: (key) => late(() => items.removeItem(key), 1_500),
    getAllKeys: () => late(() => items.getAllKeys(), 1_500),
  };
  gateway.faults.refuseSocket = 1;
  const first = open("alice", { storage: slow, userId: "alice" });
  void first.direct("bob").send("one");
  await clock.advance(5_000);
  first.close();
  gateway.faults.refuseSocket = 0;
  const second = open("alice", { storage: slow, userId: "alice" });
  void second.direct("bob").send("two");
  await clock.advance(30_000);
  assert.deepEqual(stored(), ["one", "two"]);
  second.close();

  const hangs = () => new Promise<never>(() => {});
  const storage: QueueStorage = { getItem: hangs, setItem: hangs, removeItem: hangs, getAllKeys: hangs };
  const third = open("alice", { storage, userId: "alice" });
  void third.direct("bob").send("three");
  await clock.advance(30_000);
  assert.deepEqual(stored(), ["one", "two", "three"]);
});
