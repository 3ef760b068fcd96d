import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// The gateway behind the same address, so that it need not know the page's. `gateway dev` gives tokens at /demo/users.
const target = process.env.GATEWAY_URL ?? "http://127.0.0.1:8086";
const proxy = {
  "/chat/ws": { target, ws: true },
  "/api": { target },
  "/demo": { target },
};

export default defineConfig({
  plugins: [react()],
  // The client is linked from the folder above, where its tests have a React of their own.
  resolve: { dedupe: ["react", "react-dom"] },
  server: { proxy },
  preview: { proxy },
});
