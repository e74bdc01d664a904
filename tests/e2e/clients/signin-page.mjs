// A page without a server of its own: it signs its user in at an OpenID provider (authorization code with PKCE), and
// calls the gateway with the token that it gets.

import Replicate from "replicate";

const encode = (bytes) =>
  btoa(String.fromCharCode(...new Uint8Array(bytes)))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "");
const random = () => encode(crypto.getRandomValues(new Uint8Array(32)));
const here = `${location.origin}/`;

/** Send the user to the provider. */
async function signIn(settings) {
  const [state, verifier] = [random(), random()];
  sessionStorage.signIn = JSON.stringify({ ...settings, state, verifier });
  const challenge = encode(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier)));
  const query = {
    client_id: "page",
    redirect_uri: here,
    response_type: "code",
    scope: "openid read predict",
    resource: settings.audience,
    state,
    code_challenge: challenge,
    code_challenge_method: "S256",
  };
  location.assign(`${settings.issuer}/auth?${new URLSearchParams(query)}`);
}

/** Change the code with which the provider has sent the user back into a token. */
async function tokenFor(returned, { issuer, state, verifier, audience }) {
  if (returned.get("state") !== state) throw new Error("this sign-in did not begin here");
  const body = new URLSearchParams({
    grant_type: "authorization_code",
    client_id: "page",
    code: returned.get("code"),
    redirect_uri: here,
    code_verifier: verifier,
    resource: audience,
  });
  const answer = await (await fetch(`${issuer}/token`, { method: "POST", body })).json();
  return answer.access_token;
}

/** Run and stream with the token. */
async function use(token, { gateway, ref, input }) {
  const replicate = new Replicate({ auth: token, baseUrl: gateway });
  const ran = [await replicate.run(ref, { input })].flat().join("");
  let streamed = "";
  const events = [];
  for await (const event of replicate.stream(ref, { input: { ...input, seed: 8 } })) {
    streamed += `${event}`;
    events.push(event.event);
  }
  const listed = (await replicate.predictions.list()).results.length;
  return { ran, streamed, events, listed, claims: JSON.parse(atob(token.split(".")[1])) };
}

const found = new URLSearchParams(location.search);
if (found.has("settings")) {
  await signIn(JSON.parse(found.get("settings")));
} else {
  const settings = JSON.parse(sessionStorage.signIn);
  let said;
  try {
    said = { result: await use(await tokenFor(found, settings), settings) };
  } catch (error) {
    said = { error: String(error) };
  }
  const shown = document.createElement("pre");
  shown.textContent = JSON.stringify(said);
  document.body.append(shown);
}
