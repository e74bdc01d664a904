// node enlarge.mjs PICTURE [RESULT]: sends a file to a model, and saves what it makes of it.

import { readFile, writeFile } from "node:fs/promises";
import Replicate from "replicate";

const [picture, result = "enlarged.png"] = process.argv.slice(2);
if (!picture) throw new Error("Usage: node enlarge.mjs PICTURE [RESULT]");

const replicate = new Replicate({
  auth: process.env.GATEWAY_KEY,
  baseUrl: `${process.env.GATEWAY_URL ?? "http://127.0.0.1:8080"}/v1`,
});
const model = process.env.IMAGE_MODEL ?? "recraft-ai/recraft-crisp-upscale";

// The client uploads the Blob to the gateway, which passes it on to Replicate.
const image = new Blob([await readFile(picture)], { type: "image/png" });
const output = await replicate.run(model, { input: { image } });

// A file object if the link is https, else the link.
const link = String(output.url?.() ?? output);
const answer = await fetch(link);
if (!answer.ok) throw new Error(`${answer.status} for the result`);
await writeFile(result, Buffer.from(await answer.arrayBuffer()));
console.log(result);
