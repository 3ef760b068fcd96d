// Pages with `EventSource` behind load balancers: cut off, told 503 once as a node says it and once as a load balancer does, and
// moved by a rolling restart. Each must show every message that was sent meanwhile, once and in order.
//
//   JWT_SECRET=… node event-source.mjs DIRECTORY NAME=URL…
//
// Each NAME is a load balancer before two nodes. The first page brings its token in a cookie, the others in the query. When
// the nodes are to be restarted, the file DIRECTORY/restart appears; whoever restarts them makes DIRECTORY/restarted.
// CHROMIUM=<binary> if it isn't /usr/bin/chromium. deploy/event-source.sh runs it with all that it needs.
//
// Prints a line per check and ends with "N passed, M failed"; exits with 1 if one failed.

import { createHmac } from "node:crypto";
import { existsSync, writeFileSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { check, finish, launch } from "./checks.mjs";

const SEND_EVERY_MS = 60;
// `EventSource` waits some seconds before it comes back; a debug build on a busy machine needs some more.
const WAIT_MS = 20_000;
const RESTART_WAIT_MS = 60_000;

const [directory, ...named] = process.argv.slice(2);
const balancers = named.map((text) => ({ name: text.split("=")[0], url: text.slice(text.indexOf("=") + 1) }));
if (!directory || balancers.length === 0 || !balancers.every(({ url }) => URL.canParse(url)) || !process.env.JWT_SECRET) {
  console.error("usage: JWT_SECRET=… node event-source.mjs DIRECTORY NAME=URL…");
  process.exit(2);
}

const HTML = `<!doctype html><meta charset="utf-8"><title>EventSource</title><ol></ol><script>
const seen = { opened: 0, resumed: 0, resyncs: 0, goaways: 0, errors: 0, gaveUp: 0, last: "" };
function listen() {
  const query = new URLSearchParams(location.search);
  if (seen.last) query.set("since", seen.last);
  const source = new EventSource("/api/v1/events?" + query);
  const on = (type, take) => source.addEventListener(type, (event) => {
    seen.last = event.lastEventId;
    take(JSON.parse(event.data).payload);
  });
  on("auth_success", ({ resumed }) => { seen.opened += 1; seen.resumed += resumed ? 1 : 0; });
  on("message.new", ({ message }) => {
    document.querySelector("ol").append(Object.assign(document.createElement("li"), { textContent: message.content }));
  });
  on("goaway", () => { seen.goaways += 1; });
  on("resync", () => { seen.resyncs += 1; });
  // It comes back by itself, unless the answer was an error: then it gives up for good.
  source.onerror = () => {
    seen.errors += 1;
    if (source.readyState !== EventSource.CLOSED) return;
    seen.gaveUp += 1;
    setTimeout(listen, 300);
  };
}
listen();
</script>`;

// How a node says 503 to `EventSource`, and how a load balancer says it.
const COME_BACK = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n: UNAVAILABLE\nretry: 700\n\n";
const UNAVAILABLE = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

const run = Date.now().toString(36);

function token(user) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const now = Math.floor(Date.now() / 1000);
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub: user, iat: now, exp: now + 3600 })}`;
  return `${signed}.${createHmac("sha256", process.env.JWT_SECRET).update(signed).digest("base64url")}`;
}

// Stands between the browser and a load balancer: serves the page, cuts connections off, and refuses streams.
class Proxy {
  refusals = [];
  #sockets = new Set();

  static async before(url) {
    const proxy = new Proxy();
    const to = new URL(url);
    const server = net.createServer((client) => proxy.#take(client, to));
    await new Promise((done) => server.listen(0, "127.0.0.1", done));
    proxy.url = `http://127.0.0.1:${server.address().port}`;
    return proxy;
  }

  #take(client, to) {
    this.#sockets.add(client);
    client.on("error", () => {}).on("close", () => this.#sockets.delete(client));
    client.once("data", (head) => {
      const path = head.toString("latin1").split(" ")[1] ?? "";
      if (path.startsWith("/page")) {
        const headers = `Content-Type: text/html\r\nContent-Length: ${Buffer.byteLength(HTML)}\r\nConnection: close\r\n\r\n`;
        return client.end(`HTTP/1.1 200 OK\r\n${headers}${HTML}`);
      }
      if (path.startsWith("/api/v1/events") && this.refusals.length > 0) return client.end(this.refusals.shift());
      const upstream = net.connect(to.port, to.hostname);
      upstream.on("error", () => {}).on("close", () => client.destroy());
      client.on("close", () => upstream.destroy());
      upstream.write(head);
      client.pipe(upstream).pipe(client);
    });
  }

  cut() {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }
}

// Sends one message after another, each until it is acknowledged.
class Sender {
  contents = [];
  #going = true;

  constructor(url, from, to) {
    this.end = this.#send(url, from, to);
  }

  async #send(url, from, to) {
    const headers = { "Content-Type": "application/json", Authorization: `Bearer ${token(from)}` };
    while (this.#going) {
      const content = `message ${this.contents.length} ${run}`;
      const body = JSON.stringify({ to, content, tempId: `${from}-${this.contents.length}` });
      const answer = await fetch(`${url}/api/v1/messages`, { method: "POST", headers, body }).catch(() => null);
      if (answer?.ok) {
        this.contents.push(content);
        await sleep(SEND_EVERY_MS);
      } else if (answer && answer.status < 500 && answer.status !== 429) {
        throw new Error(`${answer.status} ${await answer.text()}`);
      } else {
        await sleep(200);
      }
    }
  }

  async stop() {
    this.#going = false;
    await this.end;
  }
}

const browser = await launch();

const places = await Promise.all(balancers.map(async ({ name, url }, number) => {
  const [reader, writer] = [`${name}-reader-${run}`, `${name}-writer-${run}`];
  const proxy = await Proxy.before(url);
  const context = await browser.newContext();
  if (number === 0) await context.addCookies([{ name: "token", value: token(reader), url: proxy.url }]);
  const page = await context.newPage();
  await page.goto(`${proxy.url}/page${number === 0 ? "" : `?token=${token(reader)}`}`);
  return { name, proxy, page, url, reader, writer };
}));

// On every page, within the time.
const onAll = (condition, wait = WAIT_MS) =>
  Promise.all(places.map(async ({ name, page, before }) => {
    const waited = page.waitForFunction(condition, before, { timeout: wait, polling: 50 });
    await waited.catch(async () => {
      const now = await page.evaluate(() => seen);
      throw new Error(`behind ${name}: ${JSON.stringify(now)}, before ${JSON.stringify(before)}`);
    });
  }));
const remember = () => Promise.all(places.map(async (place) => {
  place.before = await place.page.evaluate(() => ({ ...seen }));
}));

await check("the stream opens, by a cookie and by the query", () => onAll(() => seen.opened === 1));

for (const place of places) place.sender = new Sender(place.url, place.writer, place.reader);
await check("messages show while they are sent", () => onAll(() => document.querySelectorAll("li").length > 5));

await check("cut off, the page comes back behind its last event", async () => {
  await remember();
  for (const { proxy } of places) proxy.cut();
  await onAll((before) => seen.resumed > before.resumed);
});

await check("told 503 by a node it comes back; told 503 by something on the way the page asks anew, and goes on", async () => {
  await remember();
  for (const { proxy } of places) {
    proxy.refusals = [COME_BACK, UNAVAILABLE];
    proxy.cut();
  }
  await onAll((before) =>
    seen.errors === before.errors + 3 && seen.gaveUp === before.gaveUp + 1 && seen.resumed > before.resumed);
});

await check("a rolling restart of both nodes moves it", async () => {
  await remember();
  writeFileSync(join(directory, "restart"), "");
  const end = Date.now() + RESTART_WAIT_MS;
  while (!existsSync(join(directory, "restarted"))) {
    if (Date.now() > end) throw new Error("the nodes were not restarted");
    await sleep(100);
  }
  await onAll((before) => seen.goaways > before.goaways && seen.resumed > before.resumed);
});

for (const { name, page, sender } of places) {
  await check(`behind ${name}, every message shows once and in order`, async () => {
    await sender.stop();
    const last = sender.contents.at(-1);
    const isLast = (text) => document.querySelector("ol").lastChild?.textContent === text;
    // If it doesn't come, the comparison says so.
    await page.waitForFunction(isLast, last, { timeout: WAIT_MS }).catch(() => {});
    const shown = await page.locator("li").allTextContents();
    const [sent, wrong] = [sender.contents, sender.contents.findIndex((text, at) => text !== shown[at])];
    if (wrong >= 0 || shown.length !== sent.length) {
      throw new Error(`${sent.length} sent, ${shown.length} shown; the first difference: ${sent[wrong]}, ${shown[wrong]}`);
    }
    console.log(`        ${shown.length} messages: ${JSON.stringify(await page.evaluate(() => seen))}`);
  });
}

await check("each return went on where the page was", async () => {
  for (const { name, page } of places) {
    const { opened, resumed, resyncs } = await page.evaluate(() => seen);
    const is = `behind ${name}: ${opened} opened, ${resumed} resumed, ${resyncs} resyncs`;
    if (resumed !== opened - 1 || resyncs !== 0) throw new Error(is);
  }
});

await finish(browser);
