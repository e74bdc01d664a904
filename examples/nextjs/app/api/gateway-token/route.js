// POST /api/gateway-token: a browser token for the visitor who is signed in. The page asks again before it expires.

const GATEWAY = process.env.GATEWAY_URL ?? "http://127.0.0.1:8080";
const MODELS = (process.env.GATEWAY_MODELS ?? "meta/*,recraft-ai/*").split(",");

// Replace this by your own sign-in, and take the user's id from the session in `request`. null: nobody is signed in.
function userOf(request) {
  return process.env.EXAMPLE_USER ?? null;
}

export async function POST(request) {
  const user = userOf(request);
  if (!user) return Response.json({ detail: "Sign in first." }, { status: 401 });
  // The token works in the pages that the team lists in `origins`, or in those of them that you name here.
  const answer = await fetch(`${GATEWAY}/gateway/tokens`, {
    method: "POST",
    headers: { Authorization: `Bearer ${process.env.GATEWAY_KEY}`, "Content-Type": "application/json" },
    body: JSON.stringify({ ttl_seconds: 600, scopes: ["predict", "files"], models: MODELS, user }),
    cache: "no-store",
  });
  if (!answer.ok) {
    console.error("The gateway refused a token:", answer.status, await answer.text());
    return Response.json({ detail: "No token." }, { status: 502 });
  }
  const { token, expires_at } = await answer.json();
  return Response.json({ token, expires_at }, { headers: { "Cache-Control": "no-store" } });
}
