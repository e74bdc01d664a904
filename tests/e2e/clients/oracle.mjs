// `eventsource-parser` as a judge of many streams in one process: each line of input is a JSON list of chunks (base64),
// each line of output the events that it makes of them.

import { createInterface } from "node:readline";
import { createParser } from "eventsource-parser";

function parse(chunks) {
  const events = [];
  const parser = createParser({
    onEvent: ({ event, id, data }) => events.push([event ?? "message", id ?? null, data]),
  });
  const decoder = new TextDecoder();
  for (const chunk of chunks) parser.feed(decoder.decode(Buffer.from(chunk, "base64"), { stream: true }));
  // A CR at the very end is held back until another line end comes. What comes here is a comment, and tells nothing.
  parser.feed(`${decoder.decode()}:\n`);
  return events;
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(parse(JSON.parse(line)))}\n`);
}
