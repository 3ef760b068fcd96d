// Follows clients/README.md in an empty folder, block by block, lets two browsers chat over what came out, and then follows
// the pages beside it:
//
//   node scripts/readme.mjs FOLDER      `gateway` is on the PATH; CHROMIUM=<binary> if it isn't /usr/bin/chromium
//
// A comment before each block says what it is: `sh`, `background`, `file NAME` or `types NAME`. The blocks are run as they
// stand, but for the ports 8086, 8087, 9187, 3000 and 3001, in whose place free ones are put.
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { dirname, join, resolve } from "node:path";
import { chromium } from "playwright-core";
import { PACKAGE } from "./entries.mjs";

const BLOCK_MS_MAX = 180_000;
const UP_MS_MAX = 30_000;
const SHOWN_MS_MAX = 20_000;

const folder = resolve(process.argv[2] ?? "");
const gatewayPort = await freePort();
const pagePort = await freePort();
/** The ports of the blocks, and those that are put in their place. */
const ports = {
  8086: gatewayPort,
  8087: await freePort(),
  9187: await freePort(),
  3000: pagePort,
  3001: await freePort(),
};
/** The pages beside the first, and how many of their blocks only show something. */
const OTHERS = { "FROM-SOCKET-IO.md": 0, "FROM-CENTRIFUGO.md": 0, "BACKEND.md": 1 };
const environment = {
  ...process.env,
  PARLEY: resolve(PACKAGE, "../.."),
  HTTP_PORT: `${gatewayPort}`,
  OPS_PORT: `${await freePort()}`,
};
const background = [];
const waitFor = [gatewayPort, pagePort];
const files = {};
let at = folder;

try {
  // The block without a comment names the checkout, which the environment does here.
  for (const { kind, name, text } of blocks("README.md", 1)) await take(kind, name, text);
  await python();
  await go();
  await php();
  await twoBrowsersChat();
  for (const [page, shown] of Object.entries(OTHERS)) {
    for (const { kind, name, text } of blocks(page, shown)) await take(kind, name, text);
  }
  console.log("clients/README.md and the pages beside it work as they stand");
} finally {
  for (const { pid } of background) {
    try {
      process.kill(-pid, "SIGTERM");
    } catch {
      // It has ended.
    }
  }
}

/** The blocks of a page, of which `shown` have no comment. */
function blocks(name, shown) {
  const page = readFileSync(join(PACKAGE, "..", name), "utf8");
  const found = [...page.matchAll(/<!-- test: (\w+) ?(\S*) -->\n```\w+\n(.*?)```/gs)];
  const all = [...page.matchAll(/^```\w/gm)].length;
  if (found.length !== all - shown) throw new Error(`${name}: a block has no \`test:\` comment`);
  const ported = (text) => text.replace(/\b(8086|8087|9187|3000|3001)\b/g, (port) => `${ports[port]}`);
  return found.map(([, kind, name, text]) => ({ kind, name, text: ported(text) }));
}

async function take(kind, name, text) {
  console.log(`-- ${kind} ${name || text.split("\n")[0]}`);
  if (kind === "sh") {
    const place = join(folder, ".place");
    shell(`${text}\npwd > '${place}'`);
    at = readFileSync(place, "utf8").trim();
  } else if (kind === "background") {
    const child = spawn("bash", ["-c", text], {
      cwd: at,
      env: environment,
      detached: true,
      stdio: ["ignore", "ignore", "inherit"],
    });
    background.push(child);
    await isUp(waitFor[background.length - 1]);
  } else if (kind === "file") {
    mkdirSync(dirname(join(at, name)), { recursive: true });
    writeFileSync(join(at, name), text);
    files[name] = text;
  } else if (kind === "types") {
    types(name, text);
  } else {
    throw new Error(`"${kind}" is no kind of a block`);
  }
}

function shell(text, more = {}) {
  const { status } = spawnSync("bash", ["-euo", "pipefail", "-c", text], {
    cwd: at,
    env: { ...environment, ...more },
    stdio: ["ignore", "ignore", "inherit"],
    timeout: BLOCK_MS_MAX,
  });
  if (status !== 0) throw new Error(`this block failed:\n${text}`);
}

/** Compiles a block for React against the package that the blocks before have installed. */
function types(name, text) {
  writeFileSync(join(at, name), text);
  const modules = join(PACKAGE, "node_modules");
  const paths = Object.fromEntries(
    [
      ["react", "@types/react"],
      ["react/jsx-runtime", "@types/react/jsx-runtime"],
      ["csstype", "csstype"],
    ].map(([from, to]) => [from, [join(modules, to)]]),
  );
  const compilerOptions = {
    strict: true,
    noEmit: true,
    jsx: "react-jsx",
    module: "esnext",
    moduleResolution: "bundler",
    target: "es2022",
    lib: ["es2022", "dom"],
    types: [],
    paths,
  };
  writeFileSync(join(at, "tsconfig.json"), JSON.stringify({ compilerOptions, files: [name] }));
  shell(`node '${modules}/typescript/bin/tsc' -p tsconfig.json >&2`);
}

async function python() {
  shell("python3 -m venv python && python/bin/pip install --quiet --disable-pip-version-check pyjwt");
  await isGood("Python", "python/bin/python make_token.py");
}

async function go() {
  if (spawnSync("go", ["version"]).status !== 0)
    return console.log("SKIPPED: the Go block, because Go is not installed");
  mkdirSync(join(at, "go"));
  writeFileSync(join(at, "go/main.go"), files["make_token.go"]);
  shell("cd go && go mod init token >/dev/null 2>&1 && go get github.com/golang-jwt/jwt/v5 >/dev/null 2>&1");
  await isGood("Go", "cd go && go run .");
}

async function php() {
  if (spawnSync("php", ["--version"]).status !== 0)
    return console.log("SKIPPED: the PHP block, because PHP is not installed");
  await isGood("PHP", "php make_token.php");
}

/** The token that the command prints is taken by the gateway. */
async function isGood(language, command) {
  shell(`set -a && . ./secrets.env && (${command}) > '${folder}/.token'`);
  const token = readFileSync(join(folder, ".token"), "utf8").trim();
  const headers = { authorization: `Bearer ${token}` };
  const answer = await fetch(`http://127.0.0.1:${gatewayPort}/api/v1/conversations`, { headers });
  if (!answer.ok) throw new Error(`the token made in ${language} was answered by ${answer.status}`);
  console.log(`-- the token made in ${language} is good`);
}

async function twoBrowsersChat() {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", "--no-first-run"] });
  try {
    const [alice, bob] = await Promise.all(
      ["alice", "bob"].map(async (user) => {
        const page = await (await browser.newContext()).newPage();
        page.setDefaultTimeout(SHOWN_MS_MAX);
        await page.goto(`http://localhost:${pagePort}/?user=${user}`);
        await page.getByText("online", { exact: true }).waitFor();
        return page;
      }),
    );
    await alice.getByLabel("Message").fill("Hello, Bob");
    await alice.getByRole("button", { name: "Send" }).click();
    await bob.getByText("alice: Hello, Bob").waitFor();
    await bob.getByLabel("Message").fill("Hello, Alice");
    await bob.getByLabel("Message").press("Enter");
    await alice.getByText("bob: Hello, Alice").waitFor();
    console.log("-- two browsers chat");
  } finally {
    await browser.close();
  }
}

async function isUp(port) {
  const endMs = Date.now() + UP_MS_MAX;
  const answers = () =>
    new Promise((done) => {
      const socket = connect(port, "127.0.0.1", () => done(true));
      socket.on("error", () => done(false)).on("connect", () => socket.destroy());
    });
  while (!(await answers())) {
    if (Date.now() > endMs) throw new Error(`nothing listens on port ${port}`);
    await new Promise((done) => setTimeout(done, 100));
  }
}

function freePort() {
  return new Promise((done, fail) => {
    const server = createServer().once("error", fail);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}
