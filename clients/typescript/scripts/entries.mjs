// The package's folder, and the modules that it offers.
import { fileURLToPath } from "node:url";

export const PACKAGE = fileURLToPath(new URL("..", import.meta.url)).replace(/\/$/, "");
export const ENTRIES = ["index", "storage", "react", "types"];
