// Reads a stream as `eventsource-parser` does, which most JavaScript clients have inside: a judge of the bytes.

import { createParser } from "eventsource-parser";
import { play } from "./script.mjs";

function parse(chunks) {
  const events = [];
  const comments = [];
  const errors = [];
  const parser = createParser({
    onEvent: ({ event, data, id }) => events.push({ event, data, id }),
    onComment: (comment) => comments.push(comment),
    onError: (error) => errors.push(error.message),
  });
  for (const chunk of chunks) parser.feed(chunk);
  return { events, comments, errors };
}

await play({
  // `endsWithDone` is for a server that leaves the connection open after `done`, as upstream does.
  async read({ url, lastEventId, endsWithDone }) {
    const headers = { Accept: "text/event-stream", ...(lastEventId ? { "Last-Event-ID": lastEventId } : {}) };
    const response = await fetch(url, { headers });
    let text = "";
    for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
      text += chunk;
      if (endsWithDone && text.includes("event: done") && text.endsWith("\n\n")) break;
    }
    const type = response.headers.get("content-type");
    return { status: response.status, type, text, whole: parse([text]), piecemeal: parse([...text]) };
  },
});
