// Clients against a gateway that loses, doubles, delays and forgets, with many seeds: at the end each client shows what is
// stored, once and in order, and each message that was written is stored once, in the order of its writer.

import assert from "node:assert/strict";
import { test } from "node:test";
import { type Conversation, Parley } from "../../src/index.js";
import { memory } from "../../src/storage.js";
import type { MessageFrame } from "../../src/types.js";
import { FakeClock } from "../support/clock.js";
import { FakeGateway } from "../support/gateway.js";

const SEEDS = Number(process.env.SEEDS ?? 40);
const STEPS = 150;

interface Device {
  user: string;
  name: string;
  parley: Parley;
  reload(): void;
}

const conversationsOf = ({ user, parley }: Device): Conversation[] => [
  parley.conversation("g"),
  ...["alice", "bob", "carol"].filter((other) => other !== user).map((other) => parley.direct(other)),
];

function device(gateway: FakeGateway, user: string, name: string): Device {
  const storage = memory();
  const open = () => {
    const parley = new Parley("wss://chat.test", { ...gateway.options(user), storage, userId: user });
    for (const conversation of conversationsOf({ user, parley } as Device)) conversation.messages.subscribe(() => {});
    return parley;
  };
  const made: Device = {
    user,
    name,
    parley: open(),
    reload() {
      made.parley.close();
      made.parley = open();
    },
  };
  return made;
}

async function run(seed: number): Promise<void> {
  const clock = new FakeClock(seed);
  const gateway = new FakeGateway(clock);
  const random = clock.random;
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
  gateway.room("g", "group", ["alice", "bob", "carol"]);
  const devices = [
    device(gateway, "alice", "a1"),
    device(gateway, "alice", "a2"),
    device(gateway, "bob", "b1"),
    device(gateway, "carol", "c1"),
  ];
  /** What each page wrote into each conversation, in its order. */
  const written = new Map<string, string[]>();
  const resolved = new Map<string, number>();
  let count = 0;
  const stored = (): MessageFrame[] => [...gateway.rooms.values()].flatMap(({ messages }) => messages);

  for (let step = 0; step < STEPS; step += 1) {
    const from = pick(devices);
    const chance = random();
    if (chance < 0.45) {
      const target = pick(conversationsOf(from));
      const text = `${from.name} ${count++}`;
      const place = `${from.name} ${target.peer ?? "g"}`;
      written.set(place, [...(written.get(place) ?? []), text]);
      target.send(text).then(
        () => resolved.set(text, (resolved.get(text) ?? 0) + 1),
        () => {},
      );
    } else if (chance < 0.55) {
      const messages = stored();
      if (messages.length > 0) gateway.edit(pick(messages), `edited ${step}`);
    } else if (chance < 0.58) {
      const messages = stored();
      if (messages.length > 0) gateway.delete(pick(messages));
    } else if (chance < 0.64) gateway.cutAll(pick([1006, 1006, 4100, 4200, 4201, 4301, 4300]));
    else if (chance < 0.7) for (const socket of [...gateway.sockets]) if (random() < 0.5) socket.end(1006);
    if (chance >= 0.7 && chance < 0.74) gateway.trim();
    else if (chance >= 0.74 && chance < 0.76) gateway.forget();
    else if (chance >= 0.76 && chance < 0.79) from.reload();
    else if (chance >= 0.79 && chance < 0.8) gateway.isFrozen = true;
    if (random() < 0.1) {
      const { faults } = gateway;
      faults.refuseSocket = pick([0, 0, 0.5]);
      faults.cutOnSend = pick([0, 0, 0.2]);
      faults.cutAfterCommit = pick([0, 0, 0.2]);
      faults.retryableError = pick([0, 0, 0.3]);
      faults.repeatEvent = pick([0, 0.3]);
      faults.failRequest = pick([0, 0, 0.3]);
      faults.publishDelayMsMax = pick([0, 50, 400]);
      gateway.latencyMs = pick([1, 5, 100]);
      gateway.isFrozen = false;
    }
    await clock.advance(pick([0, 1, 10, 100, 1_000, 5_000]));
  }

  Object.assign(gateway.faults, new (Object.getPrototypeOf(gateway.faults).constructor)());
  gateway.latencyMs = 5;
  gateway.isFrozen = false;
  await clock.advance(300_000);

  const all = stored();
  // Nothing is stored twice, nothing is lost, and what one page wrote into one conversation is in its order.
  const tempIds = all.map(({ senderId, tempId }) => `${senderId} ${tempId}`);
  assert.equal(new Set(tempIds).size, all.length, "stored twice");
  assert.equal(all.length, count, "as many are stored as were written");
  for (const room of gateway.rooms.values()) {
    for (const each of devices) {
      const peer = room.frame.members.find(({ userId }) => userId !== each.user)?.userId;
      const place = `${each.name} ${room.frame.kind === "direct" ? peer : "g"}`;
      if (!room.frame.members.some(({ userId }) => userId === each.user)) continue;
      const isUnchanged = ({ content }: MessageFrame) => content.startsWith(`${each.name} `);
      const kept = room.messages.filter(isUnchanged).map(({ content }) => content);
      const expected = (written.get(place) ?? []).filter((text) => kept.includes(text));
      assert.deepEqual(kept, expected, `order of ${place}`);
    }
  }
  for (const [text, times] of resolved) assert.equal(times, 1, `${text} was acknowledged once`);

  // Each client shows what is stored.
  for (const each of devices) {
    for (const conversation of conversationsOf(each)) {
      const room = conversation.id === undefined ? undefined : gateway.rooms.get(conversation.id);
      const messages = conversation.messages.get();
      const truth = room?.messages ?? [];
      while (conversation.history.get().hasOlder) await Promise.all([conversation.loadOlder(), clock.advance(1_000)]);
      assert.deepEqual(
        conversation.messages.get().map(({ seq, content }) => `${seq} ${content}`),
        truth.map(({ seq, content }) => `${seq} ${content}`),
        `${each.name}'s ${conversation.peer ?? "group"}, of which ${messages.length} were shown`,
      );
    }
    assert.equal(each.parley.isSynced.get(), true);
    const unread = [...gateway.rooms.values()].filter(({ frame }) =>
      frame.members.some(({ userId }) => userId === each.user),
    );
    assert.equal(each.parley.conversations.get().length, unread.length, `${each.name}'s list`);
    each.parley.close();
  }
  await clock.advance(60_000);
  assert.equal(clock.alarms, 0, "nothing goes on after the end");
}

for (let seed = 1; seed <= SEEDS; seed += 1) test(`seed ${seed}`, () => run(seed));
