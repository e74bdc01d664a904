// Live updates: each event has the rendered HTML of the sections that changed.

// The Content-Security-Policy allows only this policy to create HTML.
const policy = window.trustedTypes?.createPolicy("gateway", { createHTML: (html) => html }) ?? { createHTML: (html) => html };
const state = document.getElementById("state");
const pause = document.getElementById("pause");
let source = null;

function update(id, html) {
  const element = document.getElementById(id);
  // Do not replace a section that has the focus or selected text.
  if (!element || element.querySelector(":focus")) return;
  const selection = document.getSelection();
  if (selection && !selection.isCollapsed && element.contains(selection.anchorNode)) return;
  element.innerHTML = policy.createHTML(html);
}

function setState(text) {
  // Set only on change: screen readers announce every update.
  if (state.textContent !== text) state.textContent = text;
}

function listen() {
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

pause.hidden = false;
pause.addEventListener("click", () => {
  const paused = source !== null;
  if (paused) stop();
  else listen();
  pause.setAttribute("aria-pressed", String(paused));
  setState(paused ? "Paused." : "");
});

// Close the stream when the page is hidden. Reopen it when the page is restored from the back/forward cache.
window.addEventListener("pagehide", stop);
window.addEventListener("pageshow", ({ persisted }) => {
  if (persisted && pause.getAttribute("aria-pressed") === "false") listen();
});

listen();
