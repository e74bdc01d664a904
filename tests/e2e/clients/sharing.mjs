// npm `replicate` 1.4.0: many calls at once from one process, as a server with many visitors makes them.

import { createServer } from "node:net";
import { connect } from "node:net";
import Replicate from "replicate";
import { baseUrl, key, play } from "./script.mjs";

function client(options = {}) {
  return new Replicate({ auth: key, baseUrl, ...options });
}

const brief = ({ id, status, output, urls }) => ({ id, status, output, urls });

/** Open a door before the gateway that breaks the first connections once what was asked has passed it. */
async function fragileDoor(breaks) {
  const { hostname, port } = new URL(baseUrl);
  let left = breaks;
  const door = createServer((caller) => {
    const inner = connect(Number(port), hostname);
    for (const socket of [caller, inner]) socket.on("error", () => {});
    caller.pipe(inner);
    if (left > 0) {
      left -= 1;
      inner.on("connect", () => setTimeout(() => caller.destroy(), 30));
      // What has been asked goes through; its answer finds nobody.
      caller.on("close", () => setTimeout(() => inner.destroy(), 2000).unref());
    } else {
      inner.pipe(caller);
      caller.on("close", () => inner.destroy());
    }
  });
  await new Promise((resolve) => door.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${door.address().port}/v1`;
}

await play({
  /** Run the same thing many times at once, each call with a progress callback of its own. */
  async burst({ ref, input, wait, times }) {
    const replicate = client();
    const runs = Array.from({ length: times }, async () => {
      const seen = [];
      const output = await replicate.run(ref, { input, ...(wait ? { wait } : {}) }, (each) => seen.push(brief(each)));
      return { output, last: seen.at(-1) };
    });
    return Promise.all(runs);
  },

  /** Send one picture several times, each in one of the ways, to a model that takes files. */
  async pictures({ ref, base64, strategies }) {
    const outputs = [];
    for (const fileEncodingStrategy of strategies) {
      const image = new Blob([Buffer.from(base64, "base64")], { type: "image/png" });
      outputs.push(String(await client({ fileEncodingStrategy }).run(ref, { input: { image } })));
    }
    return outputs;
  },

  /** Stream the same thing several times at once. */
  async streams({ ref, input, times }) {
    const one = async () => {
      const events = [];
      for await (const { event, id, data } of client().stream(ref, { input })) events.push([event, id, String(data)]);
      return events;
    };
    return Promise.all(Array.from({ length: times }, one));
  },

  /** Run through a line that breaks a few times while the create is in progress. */
  async fragile({ ref, input, breaks }) {
    return client({ baseUrl: await fragileDoor(breaks) }).run(ref, { input });
  },

  /** Run the same thing several times, one call after the other, with headers of the gateway's own. */
  async again({ ref, input, headers = [] }) {
    const outputs = [];
    const said = [];
    for (const more of headers) {
      const replicate = client({
        fetch: async (url, init) => {
          const sent = new Headers(init.headers);
          for (const [name, value] of Object.entries(more)) sent.set(name, value);
          const response = await fetch(url, { ...init, headers: sent });
          said.push(response.headers.get("cache-status"));
          return response;
        },
      });
      outputs.push(await replicate.run(ref, { input }));
    }
    return { outputs, said };
  },
});
