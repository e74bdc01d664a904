// POST /api/gateway-token: a browser token for the visitor who is signed in. Everything else is the built Vite page.

import express from "express";

const GATEWAY = process.env.GATEWAY_URL ?? "http://127.0.0.1:8080";
const MODELS = (process.env.GATEWAY_MODELS ?? "meta/*,recraft-ai/*").split(",");

// Replace this by your own sign-in, and take the user's id from the session in `request`. null: nobody is signed in.
function userOf(request) {
  return process.env.EXAMPLE_USER ?? null;
}

const app = express();
app.disable("x-powered-by");

app.post("/api/gateway-token", async (request, response) => {
  const user = userOf(request);
  if (!user) return response.status(401).json({ detail: "Sign in first." });
  const answer = await fetch(`${GATEWAY}/gateway/tokens`, {
    method: "POST",
    headers: { Authorization: `Bearer ${process.env.GATEWAY_KEY}`, "Content-Type": "application/json" },
    body: JSON.stringify({ ttl_seconds: 600, scopes: ["predict", "files"], models: MODELS, user }),
  });
  if (!answer.ok) {
    console.error("The gateway refused a token:", answer.status, await answer.text());
    return response.status(502).json({ detail: "No token." });
  }
  const { token, expires_at } = await answer.json();
  response.set("Cache-Control", "no-store").json({ token, expires_at });
});

app.use(express.static(new URL(process.env.PAGE ?? "../vite/dist", import.meta.url).pathname));

const server = app.listen(Number(process.env.PORT ?? 3000), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${server.address().port}`);
});
