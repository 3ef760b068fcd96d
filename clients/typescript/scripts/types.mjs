// Generates src/generated/ from the contract documents of a running gateway:
//
//   node scripts/types.mjs [--check] [URL]      URL is http://127.0.0.1:8086 if not given
//
// With --check nothing is written; the script fails if the files differ from what it would write.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { compile } from "json-schema-to-typescript";
import openapiTS, { astToString } from "openapi-typescript";
import { PACKAGE } from "./entries.mjs";

const isCheck = process.argv.includes("--check");
const url = process.argv.slice(2).find((word) => !word.startsWith("--")) ?? "http://127.0.0.1:8086";
const folder = `${PACKAGE}/src/generated`;
const made = { "rest.ts": await rest(), "frames.ts": await frames() };
let differs = false;
mkdirSync(folder, { recursive: true });
for (const [name, text] of Object.entries(made)) {
  if (!isCheck) {
    writeFileSync(`${folder}/${name}`, text);
  } else if (readFileSync(`${folder}/${name}`, "utf8") !== text) {
    console.error(`error: src/generated/${name} differs from the gateway's document: npm run types ${url}`);
    differs = true;
  }
}
process.exit(differs ? 1 : 0);

async function document(path) {
  const answer = await fetch(new URL(path, url));
  if (!answer.ok) throw new Error(`${path} was answered by ${answer.status}`);
  return answer.json();
}

async function rest() {
  return `// Generated from /openapi.json by scripts/types.mjs.\n${astToString(await openapiTS(await document("/openapi.json")))}`;
}

/** The frames of `chat.v1`: an interface for each, and the unions of what clients and the server send. */
async function frames() {
  const { channels, components } = await document("/asyncapi.json");
  const definitions = { ...components.schemas };
  const unions = { Client: [], Server: [] };
  for (const name of Object.keys(channels["chat.v1"].messages).sort()) {
    const [sender, ...words] = name.split(/[._]/);
    const side = sender === "client" ? "Client" : "Server";
    const title = side + words.map((word) => word[0].toUpperCase() + word.slice(1)).join("");
    definitions[title] = { ...components.messages[name].payload, title };
    unions[side].push({ $ref: `#/components/schemas/${title}` });
  }
  const schema = {
    definitions,
    type: "object",
    properties: {
      client: { title: "ClientFrame", oneOf: unions.Client },
      server: { title: "ServerFrame", oneOf: unions.Server },
    },
  };
  const pointed = JSON.parse(JSON.stringify(schema).replaceAll("#/components/schemas/", "#/definitions/"));
  return compile(pointed, "ChatFrames", {
    additionalProperties: false,
    bannerComment: "// Generated from /asyncapi.json by scripts/types.mjs.",
    // Those that only other dialects use are left out.
    unreachableDefinitions: false,
  });
}
