// Makes the demo page of `gateway dev` from demo/, one file with its style and script: node scripts/demo.mjs [--check]
//
// With --check nothing is written; the script fails if the file differs from what it would write.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { PACKAGE } from "./entries.mjs";

const MADE = join(PACKAGE, "../../gateway/src/demo/index.html");

async function bundle(name) {
  const { outputFiles } = await build({
    absWorkingDir: PACKAGE,
    entryPoints: [`demo/${name}`],
    bundle: true,
    minify: true,
    write: false,
    format: "iife",
    target: "es2022",
    charset: "utf8",
  });
  return outputFiles[0].text.trim();
}

let page = readFileSync(join(PACKAGE, "demo/index.html"), "utf8");
const note = "<!-- Made from clients/typescript/demo by scripts/demo.mjs. -->";
page = page.replace("<html", `${note}\n<html`);
for (const name of ["style.css", "main.ts"]) {
  const text = await bundle(name);
  if (/<\/(script|style)/i.test(text)) throw new Error(`demo/${name} would end its own element`);
  page = page.replace(`/* ${name} */`, () => text);
}
if (!process.argv.includes("--check")) {
  writeFileSync(MADE, page);
} else if (readFileSync(MADE, "utf8") !== page) {
  console.error("error: gateway/src/demo/index.html differs from what demo/ makes: npm run demo");
  process.exit(1);
}
