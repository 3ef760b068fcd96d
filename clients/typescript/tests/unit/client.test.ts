import assert from "node:assert/strict";
import { test } from "node:test";
import { Parley } from "../../src/index.js";
import { FakeClock } from "../support/clock.js";
import { FakeGateway } from "../support/gateway.js";

function world(seed = 1) {
  const clock = new FakeClock(seed);
  const gateway = new FakeGateway(clock);
  const open = (user: string, options: object = {}) =>
    new Parley("wss://chat.test", { ...gateway.options(user), ...options });
  return { clock, gateway, open };
}

const texts = (conversation: { messages: { get(): readonly { content: string }[] } }) =>
  conversation.messages.get().map(({ content }) => content);
const look = (conversation: { messages: { subscribe(call: () => void): unknown } }) =>
  conversation.messages.subscribe(() => {});

test("the list has last messages and unread counts, newest activity first", async () => {
  const { clock, gateway, open } = world();
  gateway.say("bob", { to: "alice" }, "from bob");
  await clock.advance(10);
  gateway.say("carol", { to: "alice" }, "from carol");
  const alice = open("alice");
  await clock.advance(1_000);
  const list = () =>
    alice.conversations.get().map(({ peer, unread, lastMessage }) => `${peer} ${unread} ${lastMessage?.content}`);
  assert.deepEqual(list(), ["carol 1 from carol", "bob 1 from bob"]);
  assert.equal(alice.unread.get(), 2);
  gateway.say("bob", { to: "alice" }, "again");
  await clock.advance(1_000);
  assert.deepEqual(list()[0]?.split(" ").slice(2).join(" "), "again");
  assert.equal(gateway.requests.filter((request) => request.includes("/messages")).length, 0);
});

test("a conversation begins with a message to a user, under one name", async () => {
  const { clock, gateway, open } = world();
  const [alice, bob] = [open("alice"), open("bob")];
  await clock.advance(1_000);
  const toBob = alice.direct("bob");
  look(toBob);
  look(bob.direct("alice"));
  void toBob.send("Hello");
  await clock.advance(1_000);
  assert.equal(toBob.id, "direct:alice:bob");
  assert.deepEqual(texts(bob.direct("alice")), ["Hello"]);
  assert.deepEqual(texts(alice.conversation("direct:alice:bob")), ["Hello"]);
  assert.equal(alice.conversation("direct:alice:bob"), toBob);
  gateway.say("bob", { to: "alice" }, "Hi");
  await clock.advance(1_000);
  assert.deepEqual(texts(toBob), ["Hello", "Hi"]);
});

test("a conversation that was asked for by user and by id is shown under both", async () => {
  const { clock, gateway, open } = world();
  gateway.say("bob", { to: "alice" }, "one");
  const alice = open("alice");
  const byUser = alice.direct("bob");
  const byId = alice.conversation("direct:alice:bob");
  for (const conversation of [byUser, byId]) look(conversation);
  await clock.advance(1_000);
  gateway.say("bob", { to: "alice" }, "two");
  void byUser.send("three");
  await clock.advance(1_000);
  assert.deepEqual(texts(byUser), ["one", "two", "three"]);
  assert.deepEqual(texts(byId), ["one", "two", "three"]);
  assert.equal(alice.conversations.get().length, 1);
});

test("older pages come on demand", async () => {
  const { clock, gateway, open } = world();
  for (let at = 1; at <= 120; at += 1) gateway.say("bob", { to: "alice" }, `${at}`);
  const alice = open("alice");
  const bob = alice.direct("bob");
  await clock.advance(1_000);
  assert.deepEqual(texts(bob), ["120"]);
  look(bob);
  await clock.advance(1_000);
  assert.equal(texts(bob).length, 51);
  assert.deepEqual(bob.history.get(), { hasOlder: true, isLoading: false });
  await Promise.all([bob.loadOlder(), clock.advance(1_000)]);
  await Promise.all([bob.loadOlder(), clock.advance(1_000)]);
  assert.deepEqual(
    texts(bob),
    Array.from({ length: 120 }, (_, at) => `${at + 1}`),
  );
  assert.equal(bob.history.get().hasOlder, false);
  assert.deepEqual(
    bob.search("11").map(({ content }) => content),
    ["11", "110", "111", "112", "113", "114", "115", "116", "117", "118", "119"],
  );
});

test("a resync fetches what was missed: new messages, changes, conversations that came", async () => {
  const { clock, gateway, open } = world();
  const first = gateway.say("bob", { to: "alice" }, "one");
  const alice = open("alice");
  look(alice.direct("bob"));
  await clock.advance(10_000);
  gateway.faults.refuseSocket = 1;
  gateway.cutAll();
  for (let at = 0; at < 250; at += 1) gateway.say("bob", { to: "alice" }, `${at}`);
  gateway.edit(first, "edited");
  gateway.room("g", "group", ["alice", "bob"]);
  gateway.say("bob", { conversationId: "g" }, "in the group");
  gateway.trim();
  gateway.faults.refuseSocket = 0;
  await clock.advance(10_000);
  assert.deepEqual(texts(alice.direct("bob")), ["edited", ...Array.from({ length: 250 }, (_, at) => `${at}`)]);
  assert.equal(alice.conversations.get().find(({ id }) => id === "g")?.lastMessage?.content, "in the group");
});

test("after very many missed messages the newest page is there, and the rest on demand", async () => {
  const { clock, gateway, open } = world();
  gateway.say("bob", { to: "alice" }, "first");
  const alice = open("alice");
  const bob = alice.direct("bob");
  look(bob);
  await clock.advance(10_000);
  gateway.cutAll();
  for (let at = 0; at < 1_500; at += 1) gateway.say("bob", { to: "alice" }, `${at}`);
  gateway.trim();
  await clock.advance(10_000);
  assert.equal(texts(bob).at(-1), "1499");
  assert.ok(texts(bob).length < 200);
  assert.equal(bob.history.get().hasOlder, true);
});

test("the position is taken over only when the fetch is done", async () => {
  const { clock, gateway, open } = world();
  gateway.say("bob", { to: "alice" }, "one");
  const alice = open("alice");
  await clock.advance(10_000);
  gateway.cutAll();
  for (let at = 0; at < 3; at += 1) gateway.say("bob", { to: "alice" }, `${at}`);
  gateway.trim();
  gateway.faults.failRequest = 1;
  const { epoch } = gateway.log("alice");
  await clock.advance(10_000);
  assert.equal(alice.connection.get().status, "online");
  assert.equal(alice.isSynced.get(), false);
  gateway.cutAll();
  await clock.advance(5_000);
  // Cut off in the midst of it, it asks for the place before once more.
  assert.deepEqual(gateway.auths.at(-1)?.resume, { epoch, seq: 2 });
  gateway.faults.failRequest = 0;
  await clock.advance(60_000);
  assert.equal(alice.isSynced.get(), true);
  look(alice.direct("bob"));
  await clock.advance(1_000);
  assert.deepEqual(texts(alice.direct("bob")), ["one", "0", "1", "2"]);
});

test("a resync on an open connection, and a marker in the log, fetch too", async () => {
  const { clock, gateway, open } = world();
  gateway.say("bob", { to: "alice" }, "one");
  const alice = open("alice");
  look(alice.direct("bob"));
  await clock.advance(10_000);
  const room = [...gateway.rooms.values()][0];
  const silently = (content: string) => {
    // Stored, and told to nobody.
    if (!room) return;
    room.frame.lastSeq += 1;
    room.frame.rev += 1;
    const { lastSeq: seq, rev } = room.frame;
    const last = room.messages.at(-1);
    if (last) room.messages.push({ ...last, id: `x${seq}`, seq, rev, content });
  };
  silently("two");
  gateway.forget();
  await clock.advance(5_000);
  assert.deepEqual(texts(alice.direct("bob")), ["one", "two"]);
  silently("three");
  const log = gateway.log("alice");
  const seq = log.first + log.frames.length + 1;
  log.frames.push({ type: "resync", payload: { reason: "trimmed", epoch: log.epoch, seq }, seq });
  for (const socket of gateway.sockets) gateway.flush(socket);
  await clock.advance(5_000);
  assert.deepEqual(texts(alice.direct("bob")), ["one", "two", "three"]);
  gateway.say("bob", { to: "alice" }, "four");
  await clock.advance(1_000);
  assert.deepEqual(texts(alice.direct("bob")), ["one", "two", "three", "four"]);
});

test("events that come while a fetch is under way don't move the position", async () => {
  const { clock, gateway, open } = world();
  gateway.say("bob", { to: "alice" }, "one");
  const alice = open("alice");
  look(alice.direct("bob"));
  await clock.advance(10_000);
  const { epoch } = gateway.log("alice");
  gateway.faults.failRequest = 1;
  gateway.forget();
  await clock.advance(100);
  gateway.say("bob", { to: "alice" }, "two");
  await clock.advance(1_000);
  assert.deepEqual(texts(alice.direct("bob")), ["one", "two"]);
  gateway.cutAll();
  await clock.advance(5_000);
  assert.equal(gateway.auths.at(-1)?.resume?.epoch, epoch);
});

test("an event that comes again does nothing, and doesn't move the position back", async () => {
  const { clock, gateway, open } = world();
  gateway.say("bob", { to: "alice" }, "one");
  const alice = open("alice");
  await clock.advance(10_000);
  const told: string[] = [];
  alice.on("message.new", ({ payload }) => told.push(payload.message.content));
  const requests = gateway.requests.length;
  for (const text of ["two", "three"]) gateway.say("bob", { to: "alice" }, text);
  const again = gateway.log("alice").frames.at(-2);
  if (again) gateway.push("alice", again);
  gateway.say("bob", { to: "alice" }, "four");
  await clock.advance(1_000);
  assert.deepEqual(told, ["two", "three", "four"]);
  assert.equal(gateway.requests.length, requests);
});

for (let seed = 1; seed <= 10; seed += 1) {
  test(`what is said in an unknown conversation while it is fetched is shown (${seed})`, async () => {
    const { clock, gateway, open } = world(seed);
    const alice = open("alice");
    const group = alice.group("g");
    look(group);
    await clock.advance(10_000);
    // She was added, and the event about it is still to come.
    const sockets = [...gateway.sockets];
    gateway.sockets.clear();
    gateway.room("g", "group", ["alice", "bob"]);
    gateway.log("alice").frames.pop();
    for (const socket of sockets) gateway.sockets.add(socket);
    gateway.latencyMs = 100;
    for (const text of ["one", "two", "three", "four", "five"]) {
      gateway.say("bob", { conversationId: "g" }, text);
      await clock.advance(80);
    }
    await clock.advance(2_000);
    assert.deepEqual(texts(group), ["one", "two", "three", "four", "five"]);
  });
}

test("a hole that stays open for 5 s is fetched", async () => {
  const { clock, gateway, open } = world();
  gateway.say("bob", { to: "alice" }, "one");
  const alice = open("alice");
  look(alice.direct("bob"));
  await clock.advance(10_000);
  const frames = gateway.log("alice").frames;
  const sockets = [...gateway.sockets];
  gateway.sockets.clear();
  gateway.say("bob", { to: "alice" }, "two");
  // The event of "two" never comes.
  frames.pop();
  for (const socket of sockets) gateway.sockets.add(socket);
  gateway.say("bob", { to: "alice" }, "three");
  await clock.advance(4_000);
  assert.deepEqual(texts(alice.direct("bob")), ["one", "three"]);
  await clock.advance(2_000);
  assert.deepEqual(texts(alice.direct("bob")), ["one", "two", "three"]);
  assert.equal(gateway.requests.filter((request) => request.includes("after=")).length, 1);
});

test("edits, deletions and reactions are applied, also those told twice", async () => {
  const { clock, gateway, open } = world();
  gateway.faults.repeatEvent = 1;
  const message = gateway.say("bob", { to: "alice" }, "one");
  const other = gateway.say("bob", { to: "alice" }, "two");
  const alice = open("alice");
  look(alice.direct("bob"));
  await clock.advance(1_000);
  gateway.edit(message, "edited");
  gateway.delete(other);
  await clock.advance(1_000);
  const [first, second] = alice.direct("bob").messages.get();
  assert.deepEqual([first?.content, typeof first?.editedAt], ["edited", "string"]);
  assert.deepEqual([second?.content, typeof second?.deletedAt], ["", "string"]);
  gateway.push("alice", {
    type: "reaction.updated",
    payload: {
      messageId: message.id,
      conversationId: message.conversationId,
      userId: "bob",
      emoji: "👍",
      added: true,
      reactions: { "👍": ["bob"] },
      rev: 9,
    },
  });
  await clock.advance(1_000);
  assert.deepEqual(alice.direct("bob").messages.get()[0]?.reactions, { "👍": ["bob"] });
});

test("ticks: stored, delivered, read", async () => {
  const { clock, gateway, open } = world();
  const alice = open("alice");
  const bob = alice.direct("bob");
  await clock.advance(1_000);
  void bob.send("Hello");
  await clock.advance(1_000);
  const [message] = gateway.rooms.get("direct:alice:bob")?.messages ?? [];
  const of = { conversationId: "direct:alice:bob", userId: "bob" };
  const status = () => bob.messages.get()[0]?.status;
  assert.equal(status(), "stored");
  const at = new Date(clock.now()).toISOString();
  gateway.push("alice", {
    type: "message.delivered_update",
    payload: { ...of, upTo: message?.id ?? "", deliveredAt: at },
  });
  await clock.advance(1_000);
  assert.equal(status(), "delivered");
  gateway.push("alice", {
    type: "message.read_update",
    payload: { conversationId: of.conversationId, messageIds: [message?.id ?? ""], readBy: "bob", readAt: at },
  });
  await clock.advance(1_000);
  assert.equal(status(), "read");
});

test("arrivals are told, one receipt for several messages", async () => {
  const { clock, gateway, open } = world();
  const alice = open("alice");
  await clock.advance(1_000);
  gateway.say("bob", { to: "alice" }, "one");
  const last = gateway.say("bob", { to: "alice" }, "two");
  await clock.advance(2_000);
  const told = gateway.commands.filter(({ type }) => type === "message.delivered");
  assert.deepEqual(
    told.map(({ payload }) => payload.upTo),
    [last.id],
  );
  assert.equal(alice.connection.get().status, "online");
});

test("reading is told again after a lost connection, until it was heard", async () => {
  const { clock, gateway, open } = world();
  gateway.say("bob", { to: "alice" }, "one");
  const alice = open("alice");
  await clock.advance(1_000);
  gateway.isFrozen = true;
  alice.direct("bob").markRead();
  assert.equal(alice.unread.get(), 0);
  await clock.advance(100);
  gateway.cutAll();
  gateway.isFrozen = false;
  await clock.advance(10_000);
  const heard = gateway.commands.filter(({ type }) => type === "message.read");
  assert.equal(heard.length, 1);
  // It is called with each rendering, perhaps.
  for (let at = 0; at < 5; at += 1) alice.direct("bob").markRead();
  await clock.advance(1_000);
  assert.equal(gateway.commands.filter(({ type }) => type === "message.read").length, 1);
  assert.equal(gateway.rooms.get("direct:alice:bob")?.unread.get("alice"), 0);
});

test("typing is told while one types, ends by itself, and is shown until it ends", async () => {
  const { clock, gateway, open } = world();
  gateway.say("bob", { to: "alice" }, "one");
  const alice = open("alice");
  const bob = alice.direct("bob");
  await clock.advance(1_000);
  for (let at = 0; at < 8; at += 1) {
    bob.notifyTyping();
    await clock.advance(500);
  }
  await clock.advance(10_000);
  const told = gateway.commands.filter(({ type }) => type === "typing").map(({ payload }) => payload.isTyping);
  assert.deepEqual(told, [true, true, false]);
  const typing = (isTyping: boolean) =>
    gateway.push("alice", { type: "typing", payload: { conversationId: "direct:alice:bob", userId: "bob", isTyping } });
  typing(true);
  await clock.advance(1_000);
  assert.deepEqual(bob.typing.get(), ["bob"]);
  await clock.advance(10_000);
  assert.deepEqual(bob.typing.get(), []);
  typing(true);
  await clock.advance(100);
  gateway.say("bob", { to: "alice" }, "two");
  await clock.advance(100);
  assert.deepEqual(bob.typing.get(), []);
});

test("presence is asked for when somebody looks, and again after a reconnect", async () => {
  const { clock, gateway, open } = world();
  const alice = open("alice");
  await clock.advance(1_000);
  const presence = alice.presence("bob");
  assert.equal(presence.get().online, undefined);
  presence.subscribe(() => {});
  alice.presence("carol").subscribe(() => {});
  await clock.advance(1_000);
  assert.equal(presence.get().online, false);
  assert.equal(gateway.commands.filter(({ type }) => type === "presence.query").length, 1);
  open("bob");
  gateway.push("alice", { type: "user.online", payload: { userId: "bob", onlineAt: "" } });
  await clock.advance(1_000);
  assert.equal(presence.get().online, true);
  gateway.cutAll();
  await clock.advance(10_000);
  assert.equal(gateway.commands.filter(({ type, user }) => type === "presence.query" && user === "alice").length, 2);
});

test("presence is asked for again when a conversation begins, because nobody told of changes before", async () => {
  const { clock, open } = world();
  const alice = open("alice");
  await clock.advance(1_000);
  const presence = alice.presence("bob");
  presence.subscribe(() => {});
  await clock.advance(1_000);
  open("bob");
  await clock.advance(1_000);
  assert.equal(presence.get().online, false);
  void alice.direct("bob").send("Hello");
  await clock.advance(1_000);
  assert.equal(presence.get().online, true);
});

test("members come and go", async () => {
  const { clock, gateway, open } = world();
  gateway.room("g", "group", ["alice", "bob"]);
  const alice = open("alice");
  await clock.advance(1_000);
  const group = alice.group("g");
  const members = () => group.members.get().map(({ userId }) => userId);
  assert.deepEqual(members(), ["alice", "bob"]);
  gateway.push("alice", { type: "member.joined", payload: { conversationId: "g", userId: "carol" } });
  await clock.advance(100);
  assert.deepEqual([members(), group.info.get().memberCount], [["alice", "bob", "carol"], 3]);
  gateway.push("alice", { type: "member.left", payload: { conversationId: "g", userId: "bob" } });
  await clock.advance(100);
  assert.deepEqual([members(), group.info.get().memberCount], [["alice", "carol"], 2]);
  gateway.push("alice", { type: "conversation.left", payload: { conversationId: "g" } });
  await clock.advance(100);
  assert.equal(group.info.get().isMember, false);
  assert.deepEqual(alice.conversations.get(), []);
});

test("frames of newer gateways: changed, deleted and large conversations; unknown ones do nothing", async () => {
  const { clock, gateway, open } = world();
  const room = gateway.room("g", "group", ["alice", "bob"]);
  const alice = open("alice");
  await clock.advance(1_000);
  const changed = { ...room.frame, title: "New", large: true };
  gateway.push("alice", { type: "conversation.changed", payload: { conversation: changed } });
  gateway.push("alice", { type: "of.the.future", payload: { any: 1 } });
  await clock.advance(100);
  const info = alice.group("g").info.get();
  assert.deepEqual([info.title, info.isLarge], ["New", true]);
  gateway.push("alice", { type: "conversation.deleted", payload: { conversationId: "g" } });
  await clock.advance(100);
  assert.deepEqual(alice.conversations.get(), []);
});

test("a store tells its listener now and after each change, once for what changed together", async () => {
  const { clock, gateway, open } = world();
  const alice = open("alice");
  await clock.advance(1_000);
  const counts: number[] = [];
  const end = alice.direct("bob").messages.subscribe((messages) => counts.push(messages.length));
  void alice.direct("bob").send("one");
  void alice.direct("bob").send("two");
  await clock.advance(0);
  assert.deepEqual(counts, [0, 2]);
  const snapshot = alice.direct("bob").messages.get();
  assert.equal(alice.direct("bob").messages.get(), snapshot);
  end();
  await clock.advance(1_000);
  assert.deepEqual(counts, [0, 2]);
  assert.equal(gateway.rooms.size, 1);
});
