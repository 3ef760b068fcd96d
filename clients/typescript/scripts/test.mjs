// Bundles the tests of a folder and runs them: node scripts/test.mjs unit|gateway|browser [NAME]
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { resolve } from "node:path";
import { build } from "esbuild";
import { PACKAGE } from "./entries.mjs";

const [folder = "unit", only = ""] = process.argv.slice(2);
const out = `${PACKAGE}/build/${folder}`;
rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
const names = readdirSync(`${PACKAGE}/tests/${folder}`).filter(
  (name) => name.endsWith(".test.ts") && name.includes(only),
);
await build({
  absWorkingDir: PACKAGE,
  entryPoints: names.map((name) => `tests/${folder}/${name}`),
  outdir: out,
  outExtension: { ".js": ".mjs" },
  bundle: true,
  format: "esm",
  platform: "node",
  target: "node20",
  sourcemap: "inline",
  external: ["react", "react-dom", "ws", "playwright-core", "esbuild"],
});
const files = names.map((name) => `${out}/${name.replace(/\.ts$/, ".mjs")}`);
const arguments_ = ["--enable-source-maps", "--test", "--test-concurrency=1", "--test-reporter=spec", ...files];
const env = { ...process.env };
if (env.GATEWAY) env.GATEWAY = resolve(env.GATEWAY);
process.exit(spawnSync(process.execPath, arguments_, { cwd: PACKAGE, stdio: "inherit", env }).status ?? 1);
