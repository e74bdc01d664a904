// The visitor's browser token. A new one is requested before the old one expires.

const EARLY_MS = 30_000;
let current = null;
let pending = null;

export async function freshToken() {
  if (current && new Date(current.expires_at) - Date.now() > EARLY_MS) return current.token;
  // Several callers at once share one request.
  pending ??= request().finally(() => (pending = null));
  current = await pending;
  return current.token;
}

async function request() {
  const answer = await fetch("/api/gateway-token", { method: "POST" });
  if (!answer.ok) throw new Error(answer.status === 401 ? "Sign in first." : "No token: try again later.");
  return answer.json();
}
