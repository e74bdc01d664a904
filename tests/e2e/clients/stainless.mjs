// npm `replicate-stainless` 0.9.0, the generated client.

import Replicate from "replicate-stainless";
import { baseUrl, key, pause, play, readFile } from "./script.mjs";

function client(options = {}) {
  return new Replicate({ bearerToken: key, baseURL: baseUrl, ...options });
}

const brief = ({ id, model, version, status, output, urls }) => ({ id, model, version, status, output, urls });

async function collect(pages) {
  const items = [];
  for await (const item of pages) items.push(item);
  return items;
}

await play({
  async run({ ref, input, wait, options, maxRetries = 2 }) {
    const seen = [];
    const output = await client({ maxRetries }).run(ref, { input, ...(wait ? { wait } : {}), ...options }, (prediction) => {
      seen.push(brief(prediction));
    });
    return { output, seen };
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

  async runToFiles({ ref, input }) {
    const output = await client().run(ref, { input, wait: { mode: "block" }, useFileOutput: true });
    return Promise.all((Array.isArray(output) ? output : [output]).map(readFile));
  },

  async fromEnvironment() {
    return (await new Replicate().account.get()).username;
  },

  async runWithFile({ ref, base64, strategy, kind }) {
    const bytes = Buffer.from(base64, "base64");
    const image = { file: new File([bytes], "a.png", { type: "image/png" }), blob: new Blob([bytes]), buffer: bytes }[kind];
    const output = await client().run(ref, { input: { image, scale: 2 }, wait: { mode: "block" }, fileEncodingStrategy: strategy });
    return output;
  },

  async predictions({ version, input }) {
    const replicate = client();
    const created = await replicate.predictions.create({ version, input });
    const waited = await replicate.predictions.create({ version, input, Prefer: "wait=20" });
    const got = await replicate.predictions.get({ prediction_id: waited.id });
    const doomed = await replicate.predictions.create({ version, input: { ...input, duration: 600 } });
    const canceled = await replicate.predictions.cancel({ prediction_id: doomed.id });
    const listed = await collect(replicate.predictions.list());
    const recent = await collect(replicate.predictions.list({ created_after: waited.created_at }));
    const ended = await replicate.wait(created, { interval: 50 }, () => false);
    return { created, waited, got, canceled, listed, recent, ended };
  },

  async pages({ what }) {
    const ids = [];
    for await (const { id, owner, name } of client()[what].list()) ids.push(id ?? `${owner}/${name}`);
    return ids;
  },

  async models({ owner, name, version, made }) {
    const replicate = client();
    const where = { model_owner: owner, model_name: name };
    return {
      model: await replicate.models.get(where),
      versions: await replicate.models.versions.list(where),
      version: await replicate.models.versions.get({ ...where, version_id: version }),
      examples: await replicate.models.examples.list(where),
      readme: await replicate.models.readme.get(where),
      found: await replicate.models.search({ body: "llama" }),
      made: await replicate.models.create({ owner: "acme", name: made, visibility: "private", hardware: "cpu" }),
      deleted: (await replicate.models.delete({ model_owner: "acme", model_name: made }).asResponse()).status,
    };
  },

  async rest({ version, input }) {
    const replicate = client();
    const where = { deployment_owner: "acme", deployment_name: "story-service" };
    return {
      account: await replicate.account.get(),
      secret: await replicate.webhooks.default.secret.get(),
      hardware: await replicate.hardware.list(),
      collections: await replicate.collections.list(),
      collection: await replicate.collections.get({ collection_slug: "text-to-image" }),
      deployments: await collect(replicate.deployments.list()),
      deployment: await replicate.deployments.get(where),
      updated: await replicate.deployments.update({ ...where, max_instances: 3 }),
      deployed: await replicate.deployments.predictions.create({ ...where, input, Prefer: "wait" }),
    };
  },

  async trainings({ owner, name, version, destination, input }) {
    const replicate = client();
    const where = { model_owner: owner, model_name: name, version_id: version };
    const created = await replicate.trainings.create({ ...where, destination, input });
    let got = await replicate.trainings.get({ training_id: created.id });
    while (["starting", "processing"].includes(got.status)) {
      await pause(50);
      got = await replicate.trainings.get({ training_id: created.id });
    }
    const second = await replicate.trainings.create({ ...where, destination, input });
    const canceled = await replicate.trainings.cancel({ training_id: second.id });
    return { created, got, canceled, listed: await collect(replicate.trainings.list()) };
  },

  async files({ base64, metadata }) {
    const replicate = client();
    const content = new File([Buffer.from(base64, "base64")], "a.png", { type: "image/png" });
    const made = await replicate.files.create({ content, metadata });
    const got = await replicate.files.get({ file_id: made.id });
    const listed = await collect(replicate.files.list());
    await replicate.files.delete({ file_id: made.id });
    return { made, got, listed, after: await collect(replicate.files.list()) };
  },
});
