// What pages that update themselves share, and the button that copies a new key.

// The Content-Security-Policy allows only this policy to create HTML.
export const policy = window.trustedTypes?.createPolicy("gateway", { createHTML: (html) => html }) ?? { createHTML: (html) => html };
const state = document.getElementById("state");
const pause = document.getElementById("pause");

export function setState(text) {
  // Set only on change: screen readers announce every update.
  if (state.textContent !== text) state.textContent = text;
}

/** Whether an element has the focus or selected text, so that it must not be replaced. */
export function isUsed(element) {
  const selection = document.getSelection();
  const isSelected = selection && !selection.isCollapsed && element.contains(selection.anchorNode);
  return isSelected || element.querySelector(":focus") !== null;
}

/** Start the updates of a page. The button pauses them; they end when the page is hidden and go on when it is restored. */
export function run({ start, stop }) {
  pause.hidden = false;
  pause.addEventListener("click", () => {
    const paused = pause.getAttribute("aria-pressed") === "false";
    pause.setAttribute("aria-pressed", String(paused));
    setState(paused ? "Paused." : "");
    if (paused) stop();
    else start();
  });
  window.addEventListener("pagehide", stop);
  window.addEventListener("pageshow", ({ persisted }) => {
    // Restored from the back/forward cache.
    if (persisted && pause.getAttribute("aria-pressed") === "false") start();
  });
  start();
}

const copy = document.getElementById("copy");
// Browsers offer the clipboard to pages of https and of this machine only.
if (copy && navigator.clipboard) {
  copy.hidden = false;
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(document.getElementById("secret").textContent);
      setState("Copied.");
    } catch {
      setState("The browser did not allow it. Select the key and copy it.");
    }
  });
}
