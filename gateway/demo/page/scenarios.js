// What happens beside a run that succeeds: each scenario is a button, and the outcome in words.

import { tokenOf } from "./tokens.js";

const POLL_MS = 200;
const MOST_POLLS = 100;
const ENDED = new Set(["succeeded", "failed", "canceled", "aborted"]);

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const $ = (selector, within) => within.querySelector(selector);

export function showScenarios(list, settings) {
  for (const scenario of scenariosOf(settings)) {
    const item = document.getElementById("scenario").content.cloneNode(true).firstElementChild;
    item.id = `scenario-${scenario.name}`;
    $("h3", item).textContent = scenario.title;
    $(".about", item).textContent = scenario.about;
    const button = $("button", item);
    button.textContent = scenario.action;
    button.addEventListener("click", () => play(scenario, button, $(".outcome", item)));
    list.append(item);
  }
}

async function play(scenario, button, outcome) {
  button.disabled = true;
  outcome.hidden = false;
  outcome.replaceChildren();
  outcome.dataset.ended = "";
  const say = (text, className = "") => {
    const line = document.createElement("p");
    line.className = className;
    line.textContent = text;
    outcome.append(line);
  };
  try {
    await scenario.run(say, outcome);
  } catch (error) {
    say(error.message);
  }
  outcome.dataset.ended = "true";
  button.disabled = false;
}

function scenariosOf(settings) {
  const team = settings.teams[0];
  const base = settings.base_url;

  async function call(method, path, { body, as = team } = {}) {
    const headers = { Authorization: `Bearer ${await tokenOf(as)}`, "Content-Type": "application/json" };
    const response = await fetch(`${base}${path}`, { method, headers, body: body && JSON.stringify(body) });
    return { status: response.status, cache: response.headers.get("Cache-Status"), answer: await response.json() };
  }

  async function ended({ answer }) {
    let prediction = answer;
    for (let poll = 0; poll < MOST_POLLS && !ENDED.has(prediction.status); poll += 1) {
      await sleep(POLL_MS);
      prediction = (await call("GET", `/predictions/${prediction.id}`)).answer;
    }
    return prediction;
  }

  return [
    {
      name: "error",
      title: "A model that fails",
      about: "The create is answered as always; the prediction ends as failed, with the model's error and log.",
      action: "Run a failing model",
      async run(say) {
        const prediction = await ended(await call("POST", "/predictions", { body: { version: settings.versions.failing, input: {} } }));
        say(`status: ${prediction.status}`, "raw-line");
        say(`error: ${prediction.error}`, "raw-line");
        say(`logs: ${prediction.logs.trim().split("\n").at(-1)}`, "raw-line");
        say("A failed result is not cached: the next equal request is a new run.");
      },
    },
    {
      name: "file",
      title: "A file as input",
      about: "A picture goes to the model as a data URI, as Replicate's clients send small files. Larger ones are uploaded to /v1/files.",
      action: "Enlarge a picture",
      async run(say, outcome) {
        const picture = await (await fetch("sample.png")).blob();
        const input = { image: await dataUri(picture), scale: 2 };
        const prediction = await ended(await call("POST", "/predictions", { body: { version: settings.versions.upscale, input } }));
        if (prediction.status !== "succeeded") throw new Error(prediction.error);
        const pair = document.createElement("div");
        pair.className = "pair";
        pair.append(await figure("sample.png", "input"), await figure(prediction.output, "output, twice as large"));
        say(`${picture.size} bytes sent, status: ${prediction.status}`, "raw-line");
        outcome.append(pair);
      },
    },
    {
      name: "joined",
      title: "Two equal requests at once",
      about: "The first starts a run. The second arrives while it is in progress and joins it: one run, one charge, two predictions.",
      action: "Ask twice",
      async run(say) {
        const input = { prompt: "Write about twins", max_tokens: 60, seed: crypto.getRandomValues(new Uint32Array(1))[0] };
        const ask = () => call("POST", `/models/${settings.models.text}/predictions`, { body: { input } });
        const both = await Promise.all([ask(), ask()]);
        for (const { answer, cache } of both) say(`${answer.id}: ${cache}`, "raw-line");
        const [one, other] = await Promise.all(both.map(ended));
        const same = JSON.stringify(one.output) === JSON.stringify(other.output);
        say(same ? "Both predictions have the same output." : "The outputs differ.");
      },
    },
    {
      name: "budget",
      title: "A budget that is too small",
      about: `Team ${settings.poor_team} has a budget of $0.002 a day, and a picture costs $0.003. The create is refused before it reaches Replicate, and waiting would not help.`,
      action: "Exceed a budget",
      async run(say) {
        const path = `/models/${settings.models.image}/predictions`;
        const { status, answer } = await call("POST", path, { body: { input: { prompt: "a yacht" } }, as: settings.poor_team });
        say(`${status} ${answer.title}`, "raw-line");
        say(answer.detail);
      },
    },
    {
      name: "webhook",
      title: "A webhook",
      about: "The page's server runs a model with its key and names itself as the receiver. It checks each signature.",
      action: "Run with a webhook",
      async run(say) {
        const response = await fetch("webhook", { method: "POST" });
        const answer = await response.json();
        if (!response.ok) throw new Error(answer.detail);
        let events = [];
        for (let poll = 0; poll < MOST_POLLS && !events.some(({ status }) => ENDED.has(status)); poll += 1) {
          await sleep(POLL_MS);
          events = await (await fetch(`webhook/events?prediction=${answer.prediction}`)).json();
        }
        for (const event of events) say(`POST /hook  webhook-id: ${event.webhook_id}  status: ${event.status}`, "raw-line");
        say(events.length ? "Every delivery had a valid signature." : "Nothing was delivered.");
      },
    },
  ];
}

function dataUri(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

async function figure(source, caption) {
  const image = Object.assign(new Image(), { src: source, alt: caption });
  await image.decode();
  const element = document.createElement("figure");
  const text = document.createElement("figcaption");
  text.textContent = `${caption}: ${image.naturalWidth} × ${image.naturalHeight}`;
  element.append(image, text);
  return element;
}
