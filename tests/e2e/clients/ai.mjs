// The AI SDK with @ai-sdk/replicate, in both of its generations: the one for Node 20, and the one that needs Node 22.

import { baseUrl, key, play } from "./script.mjs";

const isNew = process.env.GENERATION === "3";
const [ai, { createReplicate }] = isNew
  ? await Promise.all([import("ai-7"), import("ai-sdk-replicate-3")])
  : await Promise.all([import("ai"), import("@ai-sdk/replicate")]);

globalThis.AI_SDK_LOG_WARNINGS = false;
const provider = createReplicate({ apiToken: key, baseURL: baseUrl });

const show = ({ mediaType, base64 }) => ({ mediaType, base64 });

await play({
  async image({ model, prompt, options, ...more }) {
    const { images } = await ai.generateImage({
      model: provider.image(model),
      prompt,
      ...more,
      providerOptions: { replicate: options ?? {} },
    });
    return images.map(show);
  },

  async editImage({ model, prompt, base64 }) {
    const { images } = await ai.generateImage({
      model: provider.image(model),
      prompt: { text: prompt, images: [Buffer.from(base64, "base64")] },
    });
    return images.map(show);
  },

  async video({ model, prompt, options, poll }) {
    const { videos } = await ai.experimental_generateVideo({
      model: provider.video(model),
      prompt,
      ...(poll ? { poll } : {}),
      providerOptions: { replicate: options ?? {} },
      // The SDK's own download refuses addresses of this machine; what is tested is the way to the link.
      download: async ({ url }) => {
        const response = await fetch(url);
        return { data: new Uint8Array(await response.arrayBuffer()), mediaType: response.headers.get("content-type") };
      },
    });
    return videos.map(show);
  },
});
