// Bundles Replicate's own npm client, unchanged, for the page of `gateway demo`. Writes dist/replicate.js, which git ignores.
import { build } from "esbuild";

await build({
  stdin: { contents: 'export { default } from "replicate"; export { version } from "replicate/package.json";', resolveDir: import.meta.dirname },
  outfile: "dist/replicate.js",
  bundle: true,
  format: "esm",
  platform: "browser",
  target: "es2022",
  legalComments: "linked",
  absWorkingDir: import.meta.dirname,
  logLevel: "info",
});
