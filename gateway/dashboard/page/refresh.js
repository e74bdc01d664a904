// Refresh lists: fetch the page again, and replace the rows that changed.

// The Content-Security-Policy allows only this policy to create HTML.
const policy = window.trustedTypes?.createPolicy("gateway", { createHTML: (html) => html }) ?? { createHTML: (html) => html };
const every = 5000;
const state = document.getElementById("state");
const pause = document.getElementById("pause");
let timer = null;

function isUsed(element) {
  const selection = document.getSelection();
  const isSelected = selection && !selection.isCollapsed && element.contains(selection.anchorNode);
  return isSelected || element.querySelector(":focus") !== null;
}

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

function setState(text) {
  // Set only on change: screen readers announce every update.
  if (state.textContent !== text) state.textContent = text;
}

function start() {
  timer ??= setInterval(() => document.hidden || refresh(), every);
  setState("Live.");
}

function stop() {
  clearInterval(timer);
  timer = null;
}

pause.hidden = false;
pause.addEventListener("click", () => {
  const paused = timer !== null;
  if (paused) stop();
  else start();
  pause.setAttribute("aria-pressed", String(paused));
  setState(paused ? "Paused." : "Live.");
});

window.addEventListener("pagehide", stop);
window.addEventListener("pageshow", () => {
  if (pause.getAttribute("aria-pressed") === "false") start();
});
