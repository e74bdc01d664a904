// What a page does, in a real browser: npm `replicate` in a bundle, and plain fetch and EventSource beside it.

import Replicate from "replicate";

const show = (tag, change) => {
  const element = document.createElement(tag);
  change(element);
  document.body.append(element);
  return element;
};

const text = (words) => show("pre", (element) => (element.textContent = words)).textContent;

async function picture(src) {
  const image = show("img", (element) => {
    element.crossOrigin = "anonymous";
    element.src = src;
  });
  await image.decode();
  return { width: image.naturalWidth, height: image.naturalHeight };
}

const asBlob = (base64) => new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], { type: "image/png" });

const describe = (error) => ({
  name: error?.name ?? typeof error,
  message: String(error?.message ?? error),
  status: error?.response?.status ?? null,
});

const scenarios = {
  async run({ replicate, ref, input, wait }) {
    const statuses = [];
    const output = await replicate.run(ref, { input, ...(wait ? { wait } : {}) }, ({ status }) => statuses.push(status));
    return { text: text([output].flat().join("")), statuses };
  },

  async paint({ replicate, ref, input }) {
    const [link] = await replicate.run(ref, { input });
    return picture(String(link));
  },

  async stream({ replicate, ref, input }) {
    let words = "";
    const events = [];
    for await (const event of replicate.stream(ref, { input })) {
      words += `${event}`;
      events.push(event.event);
    }
    return { text: text(words), events };
  },

  async upload({ replicate, ref, base64 }) {
    const file = await replicate.files.create(asBlob(base64), { purpose: "test" });
    const output = await replicate.run(ref, { input: { image: file.urls.get, scale: 2 } });
    const listed = await replicate.files.list();
    const deleted = await replicate.files.delete(file.id);
    return { file, listed: listed.results.map(({ id }) => id), deleted, ...(await picture(output)) };
  },

  async runWithBlob({ replicate, ref, base64, more }) {
    const output = await replicate.run(ref, { input: { ...more, image: asBlob(base64) } });
    return picture(output);
  },

  async plainFetch({ key, baseUrl, version, input }) {
    const headers = { Authorization: `Bearer ${key}`, "Content-Type": "application/json", Prefer: "wait" };
    const body = JSON.stringify({ version, input });
    const response = await fetch(`${baseUrl}/predictions`, { method: "POST", headers, body, cache: "no-store" });
    const prediction = await response.json();
    const again = await fetch(prediction.urls.get, { headers: { Authorization: `Bearer ${key}` }, cache: "no-store" });
    const canceled = await fetch(prediction.urls.cancel, { method: "POST", headers: { Authorization: `Bearer ${key}` } });
    return {
      status: response.status,
      text: text(prediction.output.join("")),
      again: (await again.json()).status,
      canceled: (await canceled.json()).status,
      headers: [...response.headers.keys()],
    };
  },

  async eventSource({ replicate, version, input, withCredentials, breakAfter }) {
    const { urls } = await replicate.predictions.create({ version, input });
    const events = [];
    return new Promise((resolve, reject) => {
      const source = new EventSource(urls.stream, { withCredentials: Boolean(withCredentials) });
      const take = (event) => events.push({ type: event.type, data: event.data, id: event.lastEventId });
      source.addEventListener("output", take);
      source.addEventListener("logs", take);
      source.addEventListener("done", (event) => {
        take(event);
        source.close();
        const output = events.filter(({ type }) => type === "output").map(({ data }) => data);
        resolve({ text: text(output.join("")), output, types: events.map(({ type }) => type), ids: events.map(({ id }) => id) });
      });
      source.onerror = () => source.readyState === EventSource.CLOSED && reject(new Error("the stream was refused"));
    });
  },

  // A bare EventSource, left to come back by itself; tells the page's own server when so many events have come.
  async follow({ replicate, version, input, tellAt }) {
    const { id, urls } = await replicate.predictions.create({ version, input });
    const events = [];
    const seen = { opened: 0, lost: 0 };
    return new Promise((resolve, reject) => {
      const source = new EventSource(urls.stream);
      source.onopen = () => (seen.opened += 1);
      const take = ({ type, data, lastEventId }) => {
        events.push({ type, data, id: lastEventId });
        if (events.length === tellAt) fetch("/note/far-enough");
      };
      for (const type of ["output", "logs"]) source.addEventListener(type, take);
      source.addEventListener("done", (event) => {
        take(event);
        source.close();
        resolve({ id, events, ...seen });
      });
      source.addEventListener("error", (event) => {
        if (event.data) take(event);
        else if (source.readyState === EventSource.CLOSED) reject(new Error("the stream was refused"));
        else seen.lost += 1;
      });
    });
  },

  // Four ways to leave a stream that goes on; the page stays until its own server lets it go.
  async leave({ replicate, version, ref, input }) {
    const one = async (more) => (await replicate.predictions.create({ version, input: { ...input, ...more } })).urls.stream;
    const first = (source) => new Promise((resolve) => source.addEventListener("output", resolve, { once: true }));
    const left = [];

    const source = new EventSource(await one({ seed: 1 }));
    await first(source);
    source.close();
    left.push("EventSource.close()");

    const controller = new AbortController();
    const response = await fetch(await one({ seed: 2 }), { signal: controller.signal });
    const reader = response.body.getReader();
    await reader.read();
    controller.abort();
    await reader.read().catch((error) => left.push(`fetch: ${error.name}`));

    const other = (await fetch(await one({ seed: 3 }))).body.getReader();
    await other.read();
    await other.cancel();
    left.push("reader.cancel()");

    // Breaking off the loop alone would leave the connection open: 1.4.0 lets go of its reader and no more.
    const second = new AbortController();
    try {
      for await (const { event } of replicate.stream(ref, { input: { ...input, seed: 4 }, signal: second.signal })) {
        if (event === "output") second.abort();
      }
    } catch (error) {
      left.push(`stream: ${error.name}`);
    }

    await fetch("/note/left");
    await fetch("/hold");
    return left;
  },

  async abort({ replicate, ref, input }) {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 300);
    const statuses = [];
    const options = { input, wait: { mode: "poll", interval: 50 }, signal: controller.signal };
    await replicate.run(ref, options, ({ status }) => statuses.push(status));
    return statuses;
  },

  async everything({ replicate, input }) {
    const names = {};
    names.models = (await replicate.models.list()).results.length;
    names.search = (await replicate.models.search("llama")).results.length;
    names.collections = (await replicate.collections.list()).results.length;
    names.hardware = (await replicate.hardware.list()).length;
    names.account = (await replicate.accounts.current()).username;
    names.predictions = (await replicate.predictions.list()).results.length;
    return names;
  },

  async bareFetch({ key, baseUrl }) {
    const response = await fetch(`${baseUrl}/hardware`, { headers: { Authorization: `Bearer ${key}` } });
    return { status: response.status, body: await response.json() };
  },
};

/** Run a scenario with a client; answer with what it gave or threw. */
window.play = async (name, key, baseUrl, given) => {
  const replicate = new Replicate({ auth: key, baseUrl });
  try {
    return { result: await scenarios[name]({ replicate, key, baseUrl, ...given }) };
  } catch (error) {
    return { error: describe(error) };
  }
};
