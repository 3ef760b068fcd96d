import assert from "node:assert/strict";
import { test } from "node:test";
import { Parley } from "../../src/index.js";
import type { Device } from "../../src/types.js";
import { FakeClock } from "../support/clock.js";
import { FakeGateway } from "../support/gateway.js";

function begin(options: object = {}) {
  const clock = new FakeClock();
  const gateway = new FakeGateway(clock);
  const parley = new Parley("wss://chat.test", { ...gateway.options("alice"), ...options });
  const states: string[] = [];
  parley.connection.subscribe(({ status }) => {
    if (states.at(-1) !== status) states.push(status);
  });
  return { clock, gateway, parley, states, status: () => parley.connection.get().status };
}

test("a client connects, and tells it", async () => {
  const { clock, parley, states } = begin();
  await clock.advance(1_000);
  assert.deepEqual(states, ["connecting", "online"]);
  assert.equal(parley.userId.get(), "alice");
  assert.equal(parley.isSynced.get(), true);
});

test("40xx stops for good, until connect is called", async () => {
  const { clock, gateway, parley, states } = begin();
  await clock.advance(1_000);
  gateway.cutAll(4002, "session_revoked");
  await clock.advance(600_000);
  assert.deepEqual(parley.connection.get(), { status: "stopped", reason: "session_revoked", code: 4002 });
  assert.equal(gateway.sockets.size, 0);
  parley.connect();
  await clock.advance(1_000);
  assert.deepEqual(states, ["connecting", "online", "stopped", "connecting", "online"]);
});

test("a lost connection comes back and resumes from the last applied event", async () => {
  const { clock, gateway, states } = begin();
  await clock.advance(10_000);
  gateway.say("bob", { to: "alice" }, "one");
  await clock.advance(1_000);
  gateway.cutAll();
  await clock.advance(2_000);
  assert.deepEqual(states, ["connecting", "online", "reconnecting", "online"]);
  const { epoch } = gateway.log("alice");
  assert.deepEqual(gateway.auths.at(-1)?.resume, { epoch, seq: 2 });
  // The missed events follow, so nothing is fetched.
  assert.equal(gateway.requests.filter((request) => request.includes("conversations?")).length, 1);
});

test("waits grow while nothing answers, and stay below 30 s", async () => {
  const { clock, gateway, parley } = begin();
  gateway.faults.refuseSocket = 1;
  const waits: number[] = [];
  parley.connection.subscribe(({ retryAtMs }) => {
    if (retryAtMs !== undefined) waits.push(retryAtMs - clock.now());
  });
  await clock.advance(600_000);
  assert.ok(waits.length > 15, `${waits.length} tries in ten minutes`);
  assert.ok(Math.max(...waits.slice(0, 2)) <= 2_000, `${waits}`);
  assert.ok(Math.max(...waits) <= 30_000, `${waits}`);
  assert.ok(Math.max(...waits) > 10_000, `${waits}`);
});

test("retryAfterMs of a refusal is waited for", async () => {
  const { clock, gateway, parley } = begin();
  await clock.advance(1_000);
  gateway.push("alice", {
    type: "error",
    payload: { code: "UNAVAILABLE", message: "full", retryable: true, retryAfterMs: 20_000 },
  });
  await clock.advance(100);
  gateway.cutAll(4100, "over_capacity");
  await clock.advance(100);
  const { status, retryAtMs } = parley.connection.get();
  assert.equal(status, "reconnecting");
  assert.ok((retryAtMs ?? 0) - clock.now() > 19_000);
});

test("42xx comes back within half a second", async () => {
  const { clock, gateway, parley } = begin();
  await clock.advance(1_000);
  gateway.cutAll(4200, "draining");
  await clock.advance(600);
  assert.equal(parley.connection.get().status, "online");
});

test("goaway moves within its window", async () => {
  const { clock, gateway, status } = begin();
  await clock.advance(1_000);
  const [before] = gateway.sockets;
  gateway.push("alice", { type: "goaway", payload: { reconnectWindowMs: 5_000, reason: "deploy" } });
  await clock.advance(6_000);
  assert.equal(status(), "online");
  assert.notEqual([...gateway.sockets][0], before);
});

test("a silent connection is found by a ping, and replaced", async () => {
  const { clock, gateway, states, status } = begin();
  await clock.advance(1_000);
  gateway.isFrozen = true;
  await clock.advance(36_000);
  assert.deepEqual(states.slice(-1), ["reconnecting"]);
  gateway.isFrozen = false;
  await clock.advance(40_000);
  assert.equal(status(), "online");
});

test("a quiet connection that answers pings stays", async () => {
  const { clock, gateway, states } = begin();
  await clock.advance(600_000);
  assert.deepEqual(states, ["connecting", "online"]);
  assert.ok(gateway.commands.filter(({ type }) => type === "ping").length > 10);
});

test("a gateway that opens and never answers is given up", async () => {
  const { clock, gateway, states } = begin();
  gateway.isFrozen = true;
  await clock.advance(25_000);
  assert.deepEqual(states, ["connecting", "reconnecting"]);
});

test("4300 fetches another token; a fixed token stops", async () => {
  let asked = 0;
  const { clock, gateway, status } = begin({
    token: () => {
      asked += 1;
      return "alice";
    },
  });
  await clock.advance(10_000);
  const before = asked;
  gateway.cutAll(4300, "token_expired");
  await clock.advance(100);
  assert.equal(status(), "online");
  assert.ok(asked > before);

  const fixed = begin({ token: "alice" });
  await fixed.clock.advance(1_000);
  fixed.gateway.cutAll(4300, "token_expired");
  await fixed.clock.advance(60_000);
  assert.deepEqual(fixed.parley.connection.get(), { status: "stopped", reason: "token_expired", code: 4300 });
});

test("4301 comes back without a position", async () => {
  const { clock, gateway } = begin();
  await clock.advance(10_000);
  gateway.cutAll(4301, "position_lost");
  await clock.advance(2_000);
  assert.equal(gateway.auths.at(-1)?.resume, undefined);
});

test("a token is refreshed over the same connection before it ends", async () => {
  const clock = new FakeClock();
  const gateway = new FakeGateway(clock);
  const tokens: string[] = [];
  const token = () => {
    const exp = clock.now() / 1_000 + 300;
    tokens.push(`e30.${Buffer.from(JSON.stringify({ exp })).toString("base64url")}.alice`);
    return tokens.at(-1) as string;
  };
  const parley = new Parley("wss://chat.test", { ...gateway.options("alice"), token });
  await clock.advance(1_000);
  const [socket] = gateway.sockets;
  await clock.advance(1_000_000);
  assert.equal([...gateway.sockets][0], socket);
  assert.equal(parley.connection.get().status, "online");
  const refreshed = gateway.auths.slice(1).map((auth) => auth.token);
  assert.ok(refreshed.length >= 4 && refreshed.length <= 6, `${refreshed.length} refreshes`);
  assert.equal(new Set(refreshed).size, refreshed.length);
});

test("nobody signed in stops; a token that can't be had is asked for again", async () => {
  const { clock, parley } = begin({ token: () => null });
  await clock.advance(1_000);
  assert.deepEqual(parley.connection.get(), { status: "stopped", reason: "signed out" });

  let tries = 0;
  const later = begin({
    token: () => {
      tries += 1;
      if (tries < 4) throw new Error("the backend is away");
      return "alice";
    },
  });
  await later.clock.advance(30_000);
  assert.deepEqual(later.states, ["connecting", "reconnecting", "online"]);
});

test("a token of another user stops", async () => {
  let user = "alice";
  const { clock, gateway, parley } = begin({ token: () => user });
  await clock.advance(1_000);
  user = "bob";
  gateway.cutAll(1006);
  await clock.advance(5_000);
  assert.equal(parley.connection.get().status, "stopped");
});

test("the device's network: offline is told, online comes back at once, and a doubt is settled by a ping", async () => {
  let isOnline = true;
  let tell: (event: "online" | "offline" | "wake") => void = () => {};
  const device: Device = {
    isOnline: () => isOnline,
    listen: (call) => {
      tell = call;
      return () => {};
    },
  };
  const { clock, gateway, states, status } = begin({ device });
  await clock.advance(10_000);
  isOnline = false;
  gateway.faults.refuseSocket = 1;
  gateway.isFrozen = true;
  tell("offline");
  await clock.advance(5_000);
  assert.equal(status(), "offline");
  isOnline = true;
  gateway.faults.refuseSocket = 0;
  gateway.isFrozen = false;
  tell("online");
  await clock.advance(500);
  assert.equal(status(), "online");
  assert.deepEqual(states, ["connecting", "online", "offline", "reconnecting", "online"]);
  // A page that wakes up asks whether its connection still stands.
  tell("wake");
  await clock.advance(5_000);
  assert.equal(status(), "online");
});

test("a device that is wrong about its network connects all the same", async () => {
  const device: Device = { isOnline: () => false, listen: () => () => {} };
  const { clock, gateway, states } = begin({ device });
  gateway.faults.refuseSocket = 1;
  await clock.advance(1_000);
  gateway.faults.refuseSocket = 0;
  await clock.advance(5_000);
  assert.deepEqual(states, ["offline", "online"]);
});

test("close ends all timers", async () => {
  const { clock, gateway, parley } = begin();
  await clock.advance(1_000);
  gateway.say("bob", { to: "alice" }, "one");
  parley.direct("bob").notifyTyping();
  await clock.advance(1_000);
  parley.close();
  assert.deepEqual(parley.connection.get(), { status: "stopped", reason: "closed" });
  await clock.advance(30_000);
  assert.equal(clock.alarms, 0);
  assert.equal(gateway.sockets.size, 0);
});

test("a stream is tried where sockets don't open, unless the gateway says that it has none", async () => {
  for (const features of [undefined, ["stream"], []]) {
    const { clock, gateway } = begin();
    gateway.features = features;
    await clock.advance(1_000);
    gateway.faults.refuseSocket = 1;
    gateway.cutAll();
    await clock.advance(60_000);
    const tried = gateway.requests.some((request) => request.includes("/api/v1/events"));
    assert.equal(tried, features?.length !== 0, `${features}`);
  }
});
