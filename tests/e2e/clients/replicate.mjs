// npm `replicate` 1.4.0: every method it has.

import Replicate from "replicate";
import { baseUrl, key, pause, play, readFile } from "./script.mjs";

const { parseProgressFromLogs, validateWebhook } = Replicate;

function client(options = {}) {
  return new Replicate({ auth: key, baseUrl, ...options });
}

/** What a test looks at in a prediction. */
function brief(prediction) {
  const { id, model, version, status, input, output, error, urls, metrics, source, deployment } = prediction;
  return { id, model, version, status, input, output, error, urls, metrics, source, deployment };
}

async function* inPages(replicate, endpoint) {
  for await (const page of replicate.paginate(endpoint)) yield page;
}

function payload(kind, base64) {
  const bytes = Buffer.from(base64, "base64");
  switch (kind) {
    case "blob":
      return new Blob([bytes], { type: "image/png" });
    case "file":
      return new File([bytes], "näme ☃.png", { type: "image/png" });
    default:
      return bytes;
  }
}

await play({
  async run({ ref, input, wait, options }) {
    const seen = [];
    const output = await client(options).run(ref, { input, ...(wait ? { wait } : {}) }, (prediction) => {
      seen.push({ ...brief(prediction), progress: parseProgressFromLogs(prediction) });
    });
    return { output, seen };
  },

  async runToFiles({ ref, input, options }) {
    const output = await client(options).run(ref, { input });
    const files = Array.isArray(output) ? output : [output];
    return Promise.all(files.map(readFile));
  },

  async abort({ ref, input, wait, after }) {
    const controller = new AbortController();
    const seen = [];
    setTimeout(() => controller.abort(), after);
    const output = await client().run(ref, { input, wait, signal: controller.signal }, (prediction) => {
      seen.push(brief(prediction));
    });
    return { output: output ?? null, seen };
  },

  async stream({ ref, input, options }) {
    const events = [];
    for await (const { event, data, id } of client(options).stream(ref, { input })) {
      events.push({ event, id, data: typeof data === "string" ? data : await readFile(data) });
    }
    return events;
  },

  async abortStream({ ref, input, events: wanted }) {
    const controller = new AbortController();
    const events = [];
    let ended = "itself";
    try {
      for await (const { event, data, id } of client().stream(ref, { input, signal: controller.signal })) {
        events.push({ event, id, data });
        if (events.length === wanted) controller.abort();
      }
    } catch (error) {
      ended = error.name;
    }
    return { events, ended };
  },

  async predictions({ version, model, input }) {
    const replicate = client();
    const created = await replicate.predictions.create({ version, input });
    const ended = await replicate.wait(created, { interval: 50 });
    const waited = await replicate.predictions.create({ version, input, wait: 20 });
    const official = await replicate.predictions.create({ model, input, wait: true });
    const got = await replicate.predictions.get(created.id);
    const list = await replicate.predictions.list();
    return {
      created: brief(created),
      ended: brief(ended),
      waited: brief(waited),
      official: brief(official),
      got: brief(got),
      list: { ...list, results: list.results.map(brief) },
    };
  },

  async poll({ version, input, interval, times }) {
    const replicate = client();
    const { id } = await replicate.predictions.create({ version, input });
    const statuses = [];
    for (let n = 0; n < times; n += 1) {
      statuses.push((await replicate.predictions.get(id)).status);
      await pause(interval);
    }
    return { id, statuses };
  },

  async cancel({ version, input }) {
    const replicate = client();
    const created = await replicate.predictions.create({ version, input });
    const canceled = await replicate.predictions.cancel(created.id);
    const got = await replicate.predictions.get(created.id);
    const again = await replicate.predictions.cancel(created.id);
    return [created, canceled, got, again].map(brief);
  },

  async createWithWebhook({ version, input, webhook }) {
    const created = await client().predictions.create({ version, input, webhook, webhook_events_filter: ["completed"] });
    return { ...brief(created), webhook: created.webhook, filter: created.webhook_events_filter };
  },

  /** Wait as `run()` does, but for so many polls at most. */
  async waitFor({ id, polls }) {
    const replicate = client();
    const prediction = await replicate.predictions.get(id);
    let left = polls;
    const waited = await replicate.wait(prediction, { interval: 50 }, async () => left-- === 0);
    return waited.status;
  },

  async get({ id }) {
    return brief(await client().predictions.get(id));
  },

  async list() {
    const list = await client().predictions.list();
    return list.results.map(brief);
  },

  async pages({ what }) {
    const replicate = client();
    const pages = [];
    for await (const page of inPages(replicate, replicate[what].list)) {
      pages.push(page.map(({ id, owner, name }) => id ?? `${owner}/${name}`));
    }
    return pages;
  },

  async models({ owner, name }) {
    const replicate = client();
    const model = await replicate.models.get(owner, name);
    const list = await replicate.models.list();
    const versions = await replicate.models.versions.list(owner, name);
    const version = await replicate.models.versions.get(owner, name, versions.results[0].id);
    return { model, list, versions, version };
  },

  async search({ words }) {
    return client().models.search(words);
  },

  async createModel({ owner, name }) {
    const options = { visibility: "private", hardware: "cpu", description: "made by a test" };
    return client().models.create(owner, name, options);
  },

  async collections() {
    const replicate = client();
    const list = await replicate.collections.list();
    const one = await replicate.collections.get(list.results[0].slug);
    return { list, one };
  },

  async deployments({ version, input }) {
    const replicate = client();
    const config = { name: "from-a-test", model: "acme/storyteller", version, hardware: "cpu", min_instances: 0, max_instances: 1 };
    const made = await replicate.deployments.create(config);
    const list = await replicate.deployments.list();
    const got = await replicate.deployments.get("acme", "from-a-test");
    const changed = await replicate.deployments.update("acme", "from-a-test", { max_instances: 2 });
    const prediction = await replicate.deployments.predictions.create("acme", "from-a-test", { input, wait: true });
    return { made, list, got, changed, prediction: brief(prediction) };
  },

  async deleteDeployment({ owner, name }) {
    return client().deployments.delete(owner, name);
  },

  async hardware() {
    return client().hardware.list();
  },

  async trainings({ owner, name, version, destination, input }) {
    const replicate = client();
    const created = await replicate.trainings.create(owner, name, version, { destination, input });
    let got = await replicate.trainings.get(created.id);
    while (["starting", "processing"].includes(got.status)) {
      await pause(50);
      got = await replicate.trainings.get(created.id);
    }
    const asPrediction = await replicate.predictions.get(created.id);
    const second = await replicate.trainings.create(owner, name, version, { destination, input });
    const canceled = await replicate.trainings.cancel(second.id);
    const list = await replicate.trainings.list();
    return { created, got, asPrediction: brief(asPrediction), second, canceled, list };
  },

  async files({ kind, base64 }) {
    const replicate = client();
    const made = await replicate.files.create(payload(kind, base64), { purpose: "test", nested: { n: 1 } });
    const got = await replicate.files.get(made.id);
    const list = await replicate.files.list();
    const deleted = await replicate.files.delete(made.id);
    const after = await replicate.files.list();
    return { made, got, list, deleted, after };
  },

  async runWithFile({ ref, kind, base64, strategy, nested }) {
    const file = payload(kind, base64);
    const input = nested ? { image: file, scale: 2, more: { deep: [file] } } : { image: file, scale: 2 };
    const seen = [];
    const output = await client({ fileEncodingStrategy: strategy }).run(ref, { input }, (prediction) => {
      seen.push(brief(prediction));
    });
    return { output, seen };
  },

  async account() {
    return client().accounts.current();
  },

  async secret({ message }) {
    const secret = await client().webhooks.default.secret.get();
    // The library's own check, over a message that is signed here with the secret: a form it can use.
    const bytes = Buffer.from(secret.key.replace("whsec_", ""), "base64");
    const { createHmac } = await import("node:crypto");
    const signature = `v1,${createHmac("sha256", bytes).update(`msg_1.1700000000.${message}`).digest("base64")}`;
    const isValid = await validateWebhook({
      id: "msg_1",
      timestamp: "1700000000",
      body: message,
      secret: secret.key,
      signature,
    });
    return { key: secret.key, isValid };
  },

  /** The library's own check of a message that arrived, with the secret that it asks for. */
  async validate({ message, secret }) {
    const key = secret ?? (await client().webhooks.default.secret.get()).key;
    return { key, isValid: await validateWebhook({ ...message, secret: key }) };
  },

  async request({ path, method }) {
    const response = await client().request(path, { method: method ?? "GET" });
    return { status: response.status, headers: Object.fromEntries(response.headers), body: await response.json() };
  },
});
