// Clients against one real node, `gateway dev`.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Parley } from "../../src/index.js";
import { memory } from "../../src/storage.js";
import { PlainProxy } from "../support/network.js";
import { backend, mint, type Node, online, open, sleep, startNode, texts, until } from "../support/nodes.js";

let node: Node;
let proxy: PlainProxy;
let run = 0;
const clients: Parley[] = [];

before(async () => {
  node = await startNode("dev", { HEARTBEAT_SECONDS: "5" });
  proxy = new PlainProxy(Number(new URL(node.url).port));
  await proxy.start();
});

after(async () => {
  for (const client of clients) client.close();
  proxy?.stop();
  await node?.program.stop();
});

/** Names of this test's own. */
function people(...names: string[]): string[] {
  run += 1;
  return names.map((name) => `${name}${run}`);
}

function client(user: string, options: object = {}): Parley {
  const made = open(node.url, user, options);
  clients.push(made);
  return made;
}

const shows = (read: () => unknown, expected: unknown) =>
  until(
    () => JSON.stringify(read()) === JSON.stringify(expected),
    () => `${JSON.stringify(read())} instead of ${JSON.stringify(expected)}`,
  );

test("two users chat: messages, ticks, unread counts, typing, presence", async () => {
  const [alice = "", bob = ""] = people("alice", "bob");
  const [a, b] = [client(alice), client(bob)];
  await online(a, b);
  const toBob = a.direct(bob);
  const toAlice = b.direct(alice);
  for (const conversation of [toBob, toAlice]) conversation.messages.subscribe(() => {});
  b.presence(alice).subscribe(() => {});
  const sent = await toBob.send("Hello");
  assert.equal(sent.content, "Hello");
  await shows(() => texts(toAlice), ["Hello"]);
  await shows(() => b.unread.get(), 1);
  await shows(() => toBob.messages.get().map(({ status }) => status), ["delivered"]);
  await shows(() => b.presence(alice).get().online, true);
  toAlice.markRead();
  await shows(() => toBob.messages.get().map(({ status }) => status), ["read"]);
  await shows(() => b.unread.get(), 0);
  toAlice.notifyTyping();
  await shows(() => toBob.typing.get(), [bob]);
  await toAlice.send("Hi");
  await shows(() => [texts(toBob), toBob.typing.get()], [["Hello", "Hi"], []]);
  assert.deepEqual(
    a.conversations.get().map(({ peer, kind }) => [peer, kind]),
    [[bob, "direct"]],
  );
});

test("edits, deletions, reactions and answers", async () => {
  const [alice = "", bob = ""] = people("alice", "bob");
  const [a, b] = [client(alice), client(bob)];
  await online(a, b);
  const toBob = a.direct(bob);
  const toAlice = b.direct(alice);
  for (const conversation of [toBob, toAlice]) conversation.messages.subscribe(() => {});
  const one = await toBob.send("one");
  const two = await toBob.send("two", { replyTo: one.id ?? "" });
  await shows(() => texts(toAlice), ["one", "two"]);
  assert.equal(toAlice.messages.get()[1]?.replyTo, one.id);
  await toBob.edit(one.id ?? "", "first");
  await toAlice.react(two.id ?? "", "👍");
  await shows(() => [texts(toAlice)[0], toBob.messages.get()[1]?.reactions], ["first", { "👍": [bob] }]);
  await toAlice.react(two.id ?? "", "👍");
  await toAlice.unreact(two.id ?? "", "👍");
  await toBob.delete(two.id ?? "");
  await shows(
    () => toAlice.messages.get().map(({ content, deletedAt }) => [content, deletedAt !== undefined]),
    [
      ["first", false],
      ["", true],
    ],
  );
  await assert.rejects(toAlice.edit(one.id ?? "", "not mine"), { code: "FORBIDDEN" });
  await assert.rejects(toAlice.react(one.id ?? "", "no emoji"), { code: "VALIDATION_ERROR" });
  await shows(() => toBob.messages.get()[1]?.reactions, {});
});

test("groups and channels: made, joined, left, roles, bans", async () => {
  const [alice = "", bob = "", carol = ""] = people("alice", "bob", "carol");
  const [a, b, c] = [client(alice), client(bob), client(carol)];
  await online(a, b, c);
  const group = await a.create({ kind: "group", title: "The group", members: [bob] });
  const id = group.id ?? "";
  await shows(() => b.conversations.get().map(({ title }) => title), ["The group"]);
  group.messages.subscribe(() => {});
  await b.group(id).send("from bob");
  await shows(() => texts(group), ["from bob"]);
  await group.addMember(carol);
  await shows(() => c.conversations.get().map(({ title }) => title), ["The group"]);
  await shows(
    () =>
      group.members
        .get()
        .map(({ userId }) => userId)
        .sort(),
    [alice, bob, carol].sort(),
  );
  await group.setRole(bob, "admin");
  assert.equal(group.members.get().find(({ userId }) => userId === bob)?.role, "admin");
  assert.equal(group.info.get().role, "owner");
  await c.group(id).leave();
  await shows(() => [c.conversations.get().length, group.info.get().memberCount], [0, 2]);
  await group.ban(bob);
  await shows(() => b.conversations.get().length, 0);
  await assert.rejects(b.group(id).send("still here"), { code: "BANNED" });

  const channel = await a.create({ kind: "channel", title: "The channel", password: "sesame" });
  const other = c.channel(channel.id ?? "");
  await assert.rejects(other.join("wrong"), { code: "PASSWORD_REQUIRED" });
  await other.join("sesame");
  other.messages.subscribe(() => {});
  await channel.send("welcome");
  await shows(() => texts(other), ["welcome"]);
});

test("a block", async () => {
  const [alice = "", bob = ""] = people("alice", "bob");
  const [a, b] = [client(alice), client(bob)];
  await online(a, b);
  await a.block(bob);
  assert.deepEqual(a.blocks.get(), [bob]);
  const refused = b.direct(alice).send("Hello");
  await assert.rejects(refused, { code: "BLOCKED" });
  const [failed] = b.direct(alice).messages.get();
  assert.equal(failed?.status, "failed");
  await a.unblock(bob);
  await b.direct(alice).sendAgain(failed?.tempId ?? "");
  await shows(() => texts(b.direct(alice)), ["Hello"]);
});

test("two devices of one user show the same", async () => {
  const [alice = "", bob = ""] = people("alice", "bob");
  const [a1, a2, b] = [client(alice), client(alice), client(bob)];
  await online(a1, a2, b);
  for (const each of [a1, a2]) each.direct(bob).messages.subscribe(() => {});
  await Promise.all([a1.direct(bob).send("from one"), a2.direct(bob).send("from two")]);
  await b.direct(alice).send("to both");
  await shows(() => texts(a1.direct(bob)).length, 3);
  await shows(() => texts(a2.direct(bob)), texts(a1.direct(bob)));
  assert.equal(a1.conversations.get().length, 1);
});

test("what is written before there is a node is sent when there is one", async () => {
  const [alice = "", bob = ""] = people("alice", "bob");
  let url = "http://127.0.0.1:9";
  const storage = memory();
  const offline = open(url, alice, { storage, userId: alice });
  for (let at = 0; at < 20; at += 1) void offline.direct(bob).send(`${at}`);
  await sleep(300);
  offline.close();
  url = node.url;
  const b = client(bob);
  const a = client(alice, { storage, userId: alice });
  a.direct(bob).messages.subscribe(() => {});
  b.direct(alice).messages.subscribe(() => {});
  const all = Array.from({ length: 20 }, (_, at) => `${at}`);
  await shows(() => texts(b.direct(alice)), all);
  await shows(
    () =>
      a
        .direct(bob)
        .messages.get()
        .map(({ content, status }) => content + (status === "sending")),
    all.map((text) => `${text}false`),
  );
});

test("a page that is reloaded again and again loses nothing of what it wrote", async () => {
  const [alice = "", bob = ""] = people("alice", "bob");
  const storage = memory();
  const b = client(bob);
  b.direct(alice).messages.subscribe(() => {});
  const written: string[] = [];
  for (let page = 0; page < 8; page += 1) {
    const a = open(node.url, alice, { storage, userId: alice });
    // Some are written before the connection stands, some while it does, and the page goes with them on their way.
    for (let at = 0; at < 3; at += 1) written.push(`${page}.${at}`);
    for (const text of written.slice(-3)) void a.direct(bob).send(text);
    await sleep(page * 30);
    a.close();
  }
  client(alice, { storage, userId: alice });
  await shows(() => texts(b.direct(alice)).sort(), written.sort());
});

test("a token is refreshed before it ends, over the same connection", async () => {
  const [alice = ""] = people("alice");
  let tokens = 0;
  const a = client(alice, {
    token: () => {
      tokens += 1;
      return mint(alice, 9);
    },
  });
  const states: string[] = [];
  a.connection.subscribe(({ status }) => states.push(status));
  await online(a);
  await sleep(16_000);
  assert.deepEqual(states.slice(-1), ["online"]);
  assert.deepEqual([...new Set(states)], ["connecting", "online"]);
  assert.ok(tokens >= 3, `${tokens} tokens`);
});

test("a revocation stops the client; a token of before doesn't bring it back", async () => {
  const [alice = ""] = people("alice");
  const old = mint(alice);
  const a = client(alice, { token: () => old });
  await online(a);
  await sleep(1_100);
  await backend(node.url, "POST", "/api/v1/control/revoke", { userId: alice });
  await until(
    () => a.connection.get().status === "stopped",
    () => JSON.stringify(a.connection.get()),
  );
  assert.equal(a.connection.get().code, 4002);
  assert.equal(a.connection.get().reason, "session_revoked");
});

test("a forced reconnect resumes", async () => {
  const [alice = "", bob = ""] = people("alice", "bob");
  const [a, b] = [client(alice), client(bob)];
  await online(a, b);
  b.direct(alice).messages.subscribe(() => {});
  await a.direct(bob).send("one");
  await backend(node.url, "POST", "/api/v1/control/disconnect", { userId: bob });
  await a.direct(bob).send("two");
  await shows(() => texts(b.direct(alice)), ["one", "two"]);
});

test("two hundred messages at once, and older pages", async () => {
  const [alice = "", bob = ""] = people("alice", "bob");
  const [a, b] = [client(alice), client(bob)];
  await online(a, b);
  const all = Array.from({ length: 200 }, (_, at) => `${at}`);
  await Promise.all(all.map((text) => a.direct(bob).send(text)));
  await shows(() => b.conversations.get()[0]?.lastMessage?.content, "199");
  const late = client(bob);
  await online(late);
  const conversation = late.direct(alice);
  conversation.messages.subscribe(() => {});
  await shows(() => texts(conversation).length > 40, true);
  while (conversation.history.get().hasOlder) await conversation.loadOlder();
  assert.deepEqual(texts(conversation), all);
});

test("a drain of the node is followed to where the next one is", async () => {
  const [alice = ""] = people("alice");
  const drained = await startNode("dev", { DRAIN_DELAY_SECONDS: "1", DRAIN_SECONDS: "4" });
  const port = new URL(drained.url).port;
  const a = open(drained.url, alice);
  clients.push(a);
  await online(a);
  const states: string[] = [];
  a.connection.subscribe(({ status }) => states.push(status));
  await drained.program.stop();
  const next = await startNode("dev", { HTTP_PORT: port });
  await online(a);
  assert.deepEqual([...new Set(states)], ["online", "reconnecting"]);
  await next.program.stop("SIGKILL");
});

test("behind a proxy that breaks WebSockets a stream and REST do the same", async () => {
  const [alice = "", bob = ""] = people("alice", "bob");
  // A token that ends ends its stream; the next one goes on from there.
  const a = open(proxy.url, alice, { token: () => mint(alice, 4), deliveryReceipts: false });
  clients.push(a);
  const b = client(bob);
  await online(a, b);
  assert.deepEqual([proxy.upgrades, proxy.streams], [2, 1]);
  const toBob = a.direct(bob);
  const toAlice = b.direct(alice);
  for (const conversation of [toBob, toAlice]) conversation.messages.subscribe(() => {});
  a.presence(bob).subscribe(() => {});
  const written: string[] = [];
  for (let at = 0; at < 30; at += 1) {
    written.push(`mine ${at}`, `yours ${at}`);
    await toBob.send(`mine ${at}`);
    await toAlice.send(`yours ${at}`);
    if (at % 10 === 5) proxy.cutAll();
    await sleep(100);
  }
  for (const conversation of [toBob, toAlice]) await shows(() => texts(conversation), written);
  assert.ok(proxy.streams >= 4, `${proxy.streams} streams`);
  await shows(() => a.presence(bob).get().online, true);
  await shows(() => a.unread.get(), 1);
  toBob.markRead();
  await shows(() => [a.unread.get(), toAlice.messages.get().at(-1)?.status], [0, "read"]);
  await toBob.react(toBob.messages.get()[1]?.id ?? "", "👍");
  await shows(() => toAlice.messages.get()[1]?.reactions, { "👍": [alice] });
  await b.block(alice);
  await assert.rejects(toBob.send("blocked"), { code: "BLOCKED" });
  await b.unblock(alice);

  // Where streams don't get through either, a socket is tried again.
  const { upgrades } = proxy;
  proxy.breaksStreams = true;
  proxy.cutAll();
  await until(
    () => proxy.upgrades > upgrades,
    () => JSON.stringify(a.connection.get()),
  );
  proxy.breaksStreams = false;
  await toBob.sendAgain(toBob.messages.get().at(-1)?.tempId ?? "");
  await shows(() => texts(toAlice), [...written, "blocked"]);
});
