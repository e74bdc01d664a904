// Live updates: each event has the rendered HTML of the sections that changed.

import { isUsed, policy, run, setState } from "./live.js";

let source = null;

function update(id, html) {
  const element = document.getElementById(id);
  if (element && !isUsed(element)) element.innerHTML = policy.createHTML(html);
}

function start() {
  source = new EventSource("/dashboard/events");
  source.addEventListener("board", ({ data }) => {
    for (const [id, html] of Object.entries(JSON.parse(data))) update(id, html);
    setState("Live.");
  });
  source.addEventListener("signed-out", () => {
    stop();
    location.assign("/dashboard");
  });
  source.addEventListener("error", () => {
    // The browser reconnects by itself, unless the stream was refused.
    setState(source?.readyState === EventSource.CLOSED ? "Not live. Reload the page." : "Not live. Reconnecting.");
  });
}

function stop() {
  source?.close();
  source = null;
}

run({ start, stop });
