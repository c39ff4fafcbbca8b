import { defineConfig } from "vitest/config";

declare const process: { env: Record<string, string | undefined> };

// `npm run dev` serves the sources on 5173 and passes the API to a running hub (address in TRACKD_DEV_HUB).
const hub = process.env["TRACKD_DEV_HUB"] ?? "http://127.0.0.1:7777";

export default defineConfig({
  base: "/",
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: {
    outDir: "../trackd_daemon/http/static",
    emptyOutDir: true,
    target: "es2022",
    sourcemap: false,
    // Inlined assets would be data: addresses, which the page's content security policy refuses.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: { proxy: { "/api": hub } },
  test: { include: ["tests/**/*.test.ts"], environment: "node" },
});
