// Replicate's own client, in the page: it talks to the gateway with the visitor's token.

import Replicate from "replicate";
import { freshToken } from "./token.js";

const BASE_URL = `${import.meta.env.VITE_GATEWAY_URL ?? "http://127.0.0.1:8080"}/v1`;
const TEXT_MODEL = import.meta.env.VITE_TEXT_MODEL ?? "meta/meta-llama-3-8b-instruct";
const IMAGE_MODEL = import.meta.env.VITE_IMAGE_MODEL ?? "recraft-ai/recraft-crisp-upscale";

// A token is checked when a request begins, so a client for each run is enough.
const client = async () => new Replicate({ auth: await freshToken(), baseUrl: BASE_URL });

async function streamText(form, output) {
  const replicate = await client();
  const input = { prompt: form.prompt.value };
  for await (const event of replicate.stream(TEXT_MODEL, { input })) {
    if (event.event === "output") output.append(event.data);
    if (event.event === "error") throw new Error(event.data);
  }
}

async function enlarge(form, output) {
  const replicate = await client();
  // The upload's link is the input, and is valid for this team only.
  const file = await replicate.files.create(form.file.files[0]);
  const found = await replicate.run(IMAGE_MODEL, { input: { image: file.urls.get }, wait: { mode: "poll" } });
  // A file object if the link is https, else the link.
  const image = Object.assign(new Image(), { src: String(found.url?.() ?? found), alt: "The enlarged picture" });
  await image.decode();
  output.replaceChildren(image);
}

function onSubmit(id, act) {
  const form = document.getElementById(id);
  const output = form.querySelector("output");
  const button = form.querySelector("button");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    output.replaceChildren();
    try {
      await act(form.elements, output);
    } catch (error) {
      output.textContent = error.message;
    }
    button.disabled = false;
  });
}

onSubmit("text", streamText);
onSubmit("image", enlarge);
