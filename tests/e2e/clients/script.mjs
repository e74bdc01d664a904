// What all scripts share: where to call, what was called, and a line of JSON at the end.
//
// A scenario is an async function of the arguments; what it returns is the result, what it throws the error.
// Every fetch is written down, so that a test can count what a client sent beside what upstream received.

export const baseUrl = process.env.GATEWAY_URL;
export const key = process.env.GATEWAY_KEY;

const requests = [];
const plainFetch = globalThis.fetch;

globalThis.fetch = async (input, init = {}) => {
  const isRequest = input instanceof Request;
  const headers = new Headers(init.headers ?? (isRequest ? input.headers : undefined));
  const entry = {
    method: (init.method ?? (isRequest ? input.method : "GET")).toUpperCase(),
    url: isRequest ? input.url : String(input),
    status: 0,
    authorized: headers.has("authorization"),
    headers: Object.fromEntries([...headers].filter(([name]) => name !== "authorization")),
  };
  requests.push(entry);
  const response = await plainFetch(input, init);
  entry.status = response.status;
  return response;
};

/** Run the scenario that the command line names, and print what came of it. */
export async function play(scenarios) {
  const [, , name] = process.argv;
  const scenario = scenarios[name];
  if (!scenario) throw new Error(`no scenario is called ${name}`);
  const answer = {};
  try {
    answer.result = (await scenario(JSON.parse(process.env.ARGUMENTS ?? "{}"))) ?? null;
  } catch (error) {
    answer.error = await describe(error);
  }
  answer.requests = requests;
  const said = JSON.stringify(answer);
  const line = said.replaceAll(key, "[key]");
  process.stdout.write(`${JSON.stringify({ leaked: line !== said })}\n${line}\n`, () => process.exit(0));
}

/** Say what an error tells a program: its class, its text, and the answer behind it. */
export async function describe(error) {
  const response = error?.response;
  const said = {
    name: error?.constructor?.name ?? typeof error,
    message: String(error?.message ?? error),
    status: error?.status ?? error?.statusCode ?? response?.status ?? null,
    headers: {},
    body: error?.error ?? error?.data ?? error?.responseBody ?? null,
    cause: error?.cause ? String(error.cause?.message ?? error.cause) : null,
  };
  const headers = response?.headers ?? error?.headers ?? error?.responseHeaders;
  if (headers) said.headers = Object.fromEntries(headers instanceof Headers ? headers : Object.entries(headers));
  return said;
}

/** Read a file output: its class, its bytes as base64, the type that they came with. */
export async function readFile(output) {
  if (typeof output === "string") return { kind: "string", url: output };
  const blob = await output.blob();
  const bytes = Buffer.from(await blob.arrayBuffer());
  return { kind: output.constructor.name, url: output.toString(), type: blob.type, base64: bytes.toString("base64") };
}

export const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
