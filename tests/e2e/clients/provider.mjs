// A real OpenID provider: npm oidc-provider, with a page, a server and a console as its clients. It runs until it is killed, and
// prints its address as a line of JSON.

import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import Provider from "oidc-provider";

const { page, audience } = JSON.parse(process.env.ARGUMENTS);

/** Make a private key, as it is configured. */
const newKey = (kid) => {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return { ...privateKey.export({ format: "jwk" }), kid, alg: "ES256", use: "sig" };
};

const server = createServer();
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: "page",
      token_endpoint_auth_method: "none",
      application_type: "native", // so that the page may be plain http on this machine
      redirect_uris: [`${page}/`],
      grant_types: ["authorization_code"],
      response_types: ["code"],
    },
    {
      client_id: "app",
      client_secret: "app-secret",
      redirect_uris: [],
      grant_types: ["client_credentials"],
      response_types: [],
    },
    {
      client_id: "console",
      client_secret: "console-secret+/:%",
      application_type: "native", // so that the console may be plain http on this machine, at any port
      redirect_uris: ["http://localhost/dashboard/sign-in/callback/id"],
      grant_types: ["authorization_code"],
      response_types: ["code"],
    },
  ],
  clientDefaults: { id_token_signed_response_alg: "ES256" },
  clientBasedCORS: () => true,
  // The groups of a user are its name, so that a test signs in as whoever it needs.
  claims: { openid: ["sub"], groups: ["groups"] },
  conformIdTokenClaims: false,
  cookies: { keys: ["cookie-secret"] },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => audience,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        audience,
        scope: "read predict",
        accessTokenFormat: "jwt",
        accessTokenTTL: 300,
        jwt: { sign: { alg: "ES256" } },
      }),
    },
  },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, groups: ["everybody", id] }) }),
  jwks: { keys: [newKey("first")] },
});

server.on("request", provider.callback());
process.stdout.write(`${JSON.stringify({ issuer })}\n`);
