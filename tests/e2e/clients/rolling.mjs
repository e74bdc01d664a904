// Calls without a pause until a file appears: npm `replicate` waits and polls, and streams are read as by `EventSource`.

import { existsSync } from "node:fs";
import { createParser } from "eventsource-parser";
import Replicate from "replicate";
import { baseUrl, key, pause, play } from "./script.mjs";

// Node's fetch keeps idle connections for 4 seconds, so a gateway should drain for longer. Here it drains for five, on slow machines too.
const DISPATCHER = Symbol.for("undici.globalDispatcher.1");
await fetch("data:,"); // It exists after the first call.
globalThis[DISPATCHER] = new globalThis[DISPATCHER].constructor({ keepAliveTimeout: 500 });

const replicate = new Replicate({ auth: key, baseUrl, useFileOutput: false });

/** Read a stream to its `done`: reconnect after it has ended, after the time that it has set, from its last event. */
async function readStream(url) {
  const events = [];
  let [lastEventId, retry, connections] = ["", 3000, 0];
  const parser = createParser({
    onEvent: ({ event, data, id }) => {
      events.push({ event, data, id });
      lastEventId = id ?? lastEventId;
    },
    onRetry: (milliseconds) => {
      retry = milliseconds;
    },
  });
  while (events.at(-1)?.event !== "done") {
    if (connections) await pause(retry);
    connections += 1;
    const headers = { Accept: "text/event-stream", ...(lastEventId ? { "Last-Event-ID": lastEventId } : {}) };
    const response = await fetch(url, { headers });
    if (response.status !== 200) throw new Error(`the stream answered ${response.status}`);
    parser.reset();
    for await (const text of response.body.pipeThrough(new TextDecoderStream())) parser.feed(text);
  }
  return { events, connections };
}

const kinds = {
  async wait(prompt, { held }) {
    let seen = 0;
    const output = await replicate.run(held, { input: { prompt, text: prompt } }, () => {
      seen += 1;
    });
    // The first is the create's answer, and the last is the result.
    return { output, polls: seen - 2 };
  },

  async poll(prompt, { slow, duration, interval }) {
    const input = { prompt, duration: duration.poll };
    return { output: await replicate.run(slow, { input, wait: { mode: "poll", interval } }) };
  },

  async stream(prompt, { story, tokens }) {
    const version = story.split(":")[1];
    const input = { prompt, max_tokens: tokens };
    const { urls } = await replicate.predictions.create({ version, input });
    return readStream(urls.stream);
  },
};

await play({
  /** Call in so many tasks of each kind; each call has a prompt of its own. */
  async keepCalling({ until, tasks, ...settings }) {
    const calls = [];
    const running = [];
    for (const [kind, count] of Object.entries(tasks)) {
      for (let task = 0; task < count; task += 1) {
        const repeat = async () => {
          for (let number = 0; !existsSync(until); number += 1) {
            const prompt = `${kind} ${task} ${number}`;
            const call = { kind, prompt };
            calls.push(call);
            Object.assign(call, await kinds[kind](prompt, settings));
          }
        };
        running.push(repeat());
      }
    }
    await Promise.all(running);
    return calls;
  },
});
