// Measures parley-client beside socket.io-client and centrifuge in Chromium: the bundle, the first connect, the memory of a
// page with 10,000 messages, and the frames a second that it takes.
//
//   npm ci && node measure.mjs      CHROMIUM=<binary> if it isn't /usr/bin/chromium; before: npm ci in clients/typescript
//
// RESULTS.md has figures. Each client talks to a small server of its own protocol on this machine: socket.io's own, and for the other two one that
// answers as much as the client asks. So the figures are those of the clients. An application on socket.io-client or centrifuge
// keeps its messages itself; here it is an array. parley-client keeps them in order, each once, and gives a snapshot after each.
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { chromium } from "playwright-core";
import { Server as SocketIo } from "socket.io";
import { WebSocketServer } from "ws";

const CONNECTS = 21;
const MESSAGES = 10_000;
const FLOOD = 2_000;
const FLOODS = 5;
const HERE = fileURLToPath(new URL(".", import.meta.url));
const createdAt = new Date().toISOString();
const message = (seq) => ({
  id: `${seq}`, conversationId: "room", seq, rev: seq, senderId: "bob", kind: "text",
  content: `Message ${seq} of a conversation, as long as most are`, createdAt,
});

// Each begins with what connects, and calls `shown(count)` with the number of messages that it has.
const CLIENTS = {
  "parley-client": `
    import { Parley } from "../../clients/typescript/src/index.ts";
    window.open_ = (call) => {
      const parley = new Parley(location.origin, { token: "a.b.c" });
      const end = parley.connection.subscribe(({ status }) => { if (status === "online") { queueMicrotask(() => end()); call(); } });
      return parley;
    };
    window.begin = (shown) => window.open_(() => {}).group("room").messages.subscribe((messages) => shown(messages.length));`,
  "socket.io-client": `
    import { io } from "socket.io-client";
    window.open_ = (call) => {
      const socket = io(location.origin, { transports: ["websocket"], forceNew: true });
      socket.on("connect", call);
      return socket;
    };
    window.begin = (shown) => {
      const messages = window.kept = [];
      window.open_(() => {}).on("message", (message) => shown(messages.push(message)));
    };`,
  centrifuge: `
    import { Centrifuge } from "centrifuge";
    window.open_ = (call) => {
      const client = new Centrifuge(location.origin.replace("http", "ws") + "/connection/websocket", { token: "a.b.c" });
      client.on("connected", call);
      client.connect();
      return Object.assign(client, { close: () => client.disconnect() });
    };
    window.begin = (shown) => {
      const messages = window.kept = [];
      const subscription = window.open_(() => {}).newSubscription("room");
      subscription.on("publication", ({ data }) => shown(messages.push(data)));
      subscription.subscribe();
    };`,
};

async function bundle(contents) {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: HERE, loader: "ts" },
    bundle: true, minify: true, write: false, format: "iife", target: "es2022", define: { "process.env.NODE_ENV": '"production"' },
  });
  return outputFiles[0].contents;
}

/** The bundle of nothing but the client. */
const sizeOf = (name) =>
  bundle(name === "parley-client"
    ? 'import { Parley } from "../../clients/typescript/src/index.ts"; window.x = Parley;'
    : name === "centrifuge" ? 'import { Centrifuge } from "centrifuge"; window.x = Centrifuge;'
      : 'import { io } from "socket.io-client"; window.x = io;');

const conversation = {
  id: "room", kind: "group", title: "Room", visibility: "private", hasPassword: false, createdAt, lastSeq: 0, rev: 0,
  memberCount: 2, members: ["alice", "bob"].map((userId) => ({ userId, role: "member", readSeq: 0 })), unread: 0,
};

/** Answers with a function that sends messages `from` to `to` to whoever is there. */
const SERVERS = {
  "parley-client": (server) => {
    const sockets = new WebSocketServer({ server, path: "/chat/ws", handleProtocols: () => "chat.v1" });
    sockets.on("connection", (socket) => socket.on("message", (bytes) => {
      const { type, ref } = JSON.parse(bytes);
      const payload = { userId: "alice", connectionId: "1", connectedAt: new Date(), epoch: "e", seq: 0, resumed: false, heartbeatSeconds: 25 };
      if (type === "auth") socket.send(JSON.stringify({ type: "auth_success", ref, payload }));
    }));
    return (seq) => ({ all: sockets.clients, text: JSON.stringify({ type: "message.new", seq, payload: { message: message(seq) } }) });
  },
  "socket.io-client": (server) => {
    const io = new SocketIo(server, { transports: ["websocket"] });
    return (seq) => ({ emit: () => io.emit("message", message(seq)) });
  },
  centrifuge: (server) => {
    const sockets = new WebSocketServer({ server, path: "/connection/websocket" });
    sockets.on("connection", (socket) => socket.on("message", (bytes) => {
      for (const line of `${bytes}`.split("\n").filter(Boolean)) {
        const { id, connect, subscribe } = JSON.parse(line);
        if (connect) socket.send(JSON.stringify({ id, connect: { client: "1", version: "0", ping: 25, pong: true } }));
        if (subscribe) socket.send(JSON.stringify({ id, subscribe: {} }));
      }
    }));
    return (seq) => ({ all: sockets.clients, text: JSON.stringify({ push: { channel: "room", pub: { data: message(seq) } } }) });
  },
};

async function measure(name) {
  const script = Buffer.from(await bundle(CLIENTS[name]));
  const server = createServer(({ url }, answer) => {
    if (url === "/script.js") return answer.end(script);
    if (!url.startsWith("/api/")) return answer.setHeader("content-type", "text/html").end("<!doctype html><script src=/script.js></script>");
    answer.setHeader("content-type", "application/json");
    if (url.includes("/messages")) return answer.end('{"items":[]}');
    if (url.startsWith("/api/v1/conversations/")) return answer.end(JSON.stringify(conversation));
    answer.end(JSON.stringify({ items: url.startsWith("/api/v1/conversations") ? [conversation] : [] }));
  });
  const frame = SERVERS[name](server);
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"],
  });
  const page = await browser.newPage();
  const devtools = await page.context().newCDPSession(page);
  const heap = async () => {
    await devtools.send("HeapProfiler.collectGarbage");
    return (await devtools.send("Runtime.getHeapUsage")).usedSize;
  };
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  const connects = await page.evaluate(async (times) => {
    const took = [];
    for (let time = 0; time < times; time += 1) {
      const beganMs = performance.now();
      const client = await new Promise((done) => {
        const opened = window.open_(() => queueMicrotask(() => done(opened)));
      });
      took.push(performance.now() - beganMs);
      client.close();
      await new Promise((done) => setTimeout(done, 200));
    }
    return took.sort((a, b) => a - b);
  }, CONNECTS);

  let seq = 0;
  const send = async (count) => {
    const beganMs = performance.now();
    const until = seq + count;
    while (seq < until) {
      const { all, text: line, emit } = frame(++seq);
      if (emit) emit();
      else for (const socket of all) socket.send(line);
    }
    await page.waitForFunction((wanted) => window.count >= wanted, until, { polling: 20 });
    return (count * 1_000) / (performance.now() - beganMs);
  };
  await page.reload();
  await page.evaluate(() => { window.count = 0; window.begin((count) => { window.count = count; }); });
  await page.waitForTimeout(1_500);
  const empty = await heap();
  const rates = [];
  while (seq < MESSAGES) rates.push(await send(FLOOD));
  const full = await heap();
  await browser.close();
  server.closeAllConnections();
  server.close();
  const size = await sizeOf(name);
  return {
    client: name, "minified KB": kb(size.length), "compressed KB": kb(gzipSync(size, { level: 9 }).length),
    "connect ms, median": connects[CONNECTS >> 1].toFixed(1), "MB before": mb(empty), [`MB with ${MESSAGES}`]: mb(full),
    "frames a second, first": Math.round(rates[0]), "last": Math.round(rates[FLOODS - 1]),
  };
}

const kb = (bytes) => (bytes / 1024).toFixed(1);
const mb = (bytes) => (bytes / 1024 / 1024).toFixed(1);
const rows = [];
for (const name of Object.keys(CLIENTS)) rows.push(await measure(name));
console.table(rows);
process.exit(0);
