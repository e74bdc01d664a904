// What a panel shows about a run: facts in a list, requests in another.

export const shown = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`);

export function fact([name, value, classes]) {
  const row = document.createElement("div");
  row.className = classes;
  const term = document.createElement("dt");
  term.textContent = name;
  const description = document.createElement("dd");
  description.textContent = value;
  row.append(term, description);
  return row;
}

export function line({ method, path, status, ms, cache }) {
  const item = document.createElement("li");
  const facts = [status, ms !== undefined && shown(ms), cache].filter(Boolean).join(" · ");
  item.textContent = `${method} ${path}  ${facts || "…"}`;
  return item;
}
