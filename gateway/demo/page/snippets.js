// The code examples that the page shows.

export const POLL_MS = 300;

export function snippet(kind, npm, model, baseUrl) {
  return code(kind, npm, model, JSON.stringify(baseUrl)).trim();
}

function code(kind, npm, model, base) {
  if (npm && kind === "text") {
    return `
const replicate = new Replicate({ auth: token, baseUrl: ${base} });

for await (const event of replicate.stream("${model}", { input })) {
  write(String(event));
}`;
  }
  if (npm) {
    return `
const replicate = new Replicate({ auth: token, baseUrl: ${base} });

const [url] = await replicate.run("${model}", { input });
image.src = url;`;
  }
  const create = `
const headers = { Authorization: \`Bearer \${token}\`, "Content-Type": "application/json" };
const response = await fetch(${base} + "/models/${model}/predictions", {
  method: "POST",
  headers,
  body: JSON.stringify({ input }),
});
let prediction = await response.json();
`;
  if (kind === "text") {
    return `${create}
const source = new EventSource(prediction.urls.stream);
source.addEventListener("output", (event) => write(event.data));
source.addEventListener("done", () => source.close());`;
  }
  return `${create}
while (["starting", "processing"].includes(prediction.status)) {
  await new Promise((resolve) => setTimeout(resolve, ${POLL_MS}));
  prediction = await (await fetch(prediction.urls.get, { headers })).json();
}
image.src = prediction.output[0];`;
}
