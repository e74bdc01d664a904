// Browser tokens. The page's server, which has the team's key, mints them.

export const tokens = new Map();

export async function tokenOf(team) {
  const known = tokens.get(team);
  if (known && Date.now() < known.until) return known.token;
  const asked = Date.now();
  const response = await fetch("token", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ team }),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail);
  // Renew a minute early, so that a token does not expire during a run.
  tokens.set(team, { token: answer.token, until: asked + (answer.ttl_seconds - 60) * 1000 });
  return answer.token;
}
