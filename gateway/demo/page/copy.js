// Buttons that copy a text to the clipboard.

const SHOWN_MS = 1500;

export function copies(button, text) {
  const label = button.textContent;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed";
    }
    setTimeout(() => (button.textContent = label), SHOWN_MS);
  });
}
