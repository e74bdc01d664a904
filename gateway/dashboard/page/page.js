// Keeps the figures new: each event brings the parts that have changed, as they are drawn by the gateway.

// The page's policy lets nobody turn text into HTML but this.
const policy = window.trustedTypes?.createPolicy("gateway", { createHTML: (html) => html }) ?? { createHTML: (html) => html };
const state = document.getElementById("state");
const pause = document.getElementById("pause");
let source = null;

function put(id, html) {
  const place = document.getElementById(id);
  // Whoever has the focus in a part, or is marking text in it, keeps it as it is.
  if (!place || place.querySelector(":focus")) return;
  const marked = document.getSelection();
  if (marked && !marked.isCollapsed && place.contains(marked.anchorNode)) return;
  place.innerHTML = policy.createHTML(html);
}

function say(words) {
  // Said once: a screen reader is not told of every event.
  if (state.textContent !== words) state.textContent = words;
}

function listen() {
  source = new EventSource("/dashboard/events");
  source.addEventListener("board", ({ data }) => {
    for (const [id, html] of Object.entries(JSON.parse(data))) put(id, html);
    say("Live.");
  });
  source.addEventListener("signed-out", () => {
    stop();
    location.assign("/dashboard");
  });
  source.addEventListener("error", () => {
    // The browser comes back by itself, unless it was refused.
    say(source?.readyState === EventSource.CLOSED ? "Not live: load the page again." : "Not live, connecting again.");
  });
}

function stop() {
  source?.close();
  source = null;
}

pause.hidden = false;
pause.addEventListener("click", () => {
  const paused = source !== null;
  if (paused) stop();
  else listen();
  pause.setAttribute("aria-pressed", String(paused));
  say(paused ? "Paused." : "");
});

// A page that nobody looks at keeps no stream open; a page that comes back from the browser's cache opens one.
window.addEventListener("pagehide", stop);
window.addEventListener("pageshow", ({ persisted }) => {
  if (persisted && pause.getAttribute("aria-pressed") === "false") listen();
});

listen();
