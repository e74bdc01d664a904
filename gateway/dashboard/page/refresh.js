// Refresh lists: fetch the page again, and replace the rows that changed.

import { isUsed, policy, run, setState } from "./live.js";

const every = 5000;
let timer = null;

async function refresh() {
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.redirected || !answer.ok) throw new Error(String(answer.status));
    const page = new DOMParser().parseFromString(policy.createHTML(await answer.text()), "text/html");
    for (const element of document.querySelectorAll("[data-refresh]")) {
      const fresh = page.getElementById(element.id);
      if (fresh && fresh.innerHTML !== element.innerHTML && !isUsed(element)) {
        element.replaceChildren(...document.importNode(fresh, true).childNodes);
      }
    }
    setState("Live.");
  } catch {
    setState("Not live. Reload the page.");
  }
}

function start() {
  timer ??= setInterval(() => document.hidden || refresh(), every);
  setState("Live.");
}

function stop() {
  clearInterval(timer);
  timer = null;
}

run({ start, stop });
