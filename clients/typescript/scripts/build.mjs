// Builds dist/: one ES module per entry with the shared parts beside them, and the declarations.
import { execFileSync } from "node:child_process";
import { rmSync } from "node:fs";
import { build } from "esbuild";
import { ENTRIES, PACKAGE } from "./entries.mjs";

rmSync(`${PACKAGE}/dist`, { recursive: true, force: true });
await build({
  absWorkingDir: PACKAGE,
  entryPoints: ENTRIES.map((name) => `src/${name}.ts`),
  outdir: "dist",
  bundle: true,
  splitting: true,
  format: "esm",
  target: "es2022",
  external: ["react"],
  chunkNames: "shared-[hash]",
});
execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.build.json"], {
  cwd: PACKAGE,
  stdio: "inherit",
});
