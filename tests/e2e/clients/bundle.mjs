// Bundles the page's script, or another that is named, as a frontend's build would, and writes it to the file that is
// named first. Packages are those of this folder, wherever the script is.

import { readFile } from "node:fs/promises";
import { build } from "esbuild";

const [, , outfile, script = new URL("page.mjs", import.meta.url).pathname] = process.argv;

await build({
  stdin: { contents: await readFile(script, "utf8"), resolveDir: new URL(".", import.meta.url).pathname },
  bundle: true,
  format: "esm",
  platform: "browser",
  target: "es2022",
  outfile,
  logLevel: "warning",
});
