// Bundles the page's script, as a frontend's build would, and writes it to the file that is named.

import { build } from "esbuild";

await build({
  entryPoints: [new URL("page.mjs", import.meta.url).pathname],
  bundle: true,
  format: "iife",
  platform: "browser",
  target: "es2022",
  outfile: process.argv[2],
  logLevel: "warning",
});
