// The page of `gateway demo`. It gets a browser token from its own server, and calls the gateway for everything else.

import { copies } from "./copy.js";
import { fact, line, shown } from "./facts.js";
import { showScenarios } from "./scenarios.js";
import { POLL_MS, snippet } from "./snippets.js";
import { tokenOf, tokens } from "./tokens.js";

const TERMINAL = new Set(["succeeded", "failed", "canceled", "aborted"]);
const TEXT_TOKENS = 160;
const MOST_LOSSES = 3;

const $ = (selector, within = document) => within.querySelector(selector);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const short = (secret) => `${secret.slice(0, 8)}…${secret.slice(-4)}`;

let settings;

// The browser's own message for an unreachable server is "Failed to fetch".
async function reach(url, init) {
  try {
    return await fetch(url, init);
  } catch (error) {
    throw new Error("The gateway could not be reached.", { cause: error });
  }
}

// --- A run of a model, with timings -------------------------------------------------------------------------------

class Run {
  constructor(panel, team, token, input) {
    Object.assign(this, { panel, team, token, input });
    this.began = performance.now();
    this.prediction = null;
    this.created = null; // the answer's headers and time
    this.firstAt = null;
    this.endedAt = null;
    this.requests = [];
    this.cancelWanted = false;
    this.cancelSent = false;
    this.fetch = this.fetch.bind(this);
  }

  // Wraps fetch and records each request and response. The npm client uses it too.
  async fetch(url, init = {}) {
    const request = this.note(init.method ?? "GET", url);
    const response = await reach(url, init);
    request.status = response.status;
    request.ms = performance.now() - request.at;
    request.cache = response.headers.get("Cache-Status");
    if (response.ok && response.headers.get("Content-Type")?.startsWith("application/json")) {
      const prediction = await response.clone().json();
      if (request.method === "POST" && this.created === null) {
        this.created = { headers: response.headers, ms: request.ms };
      }
      if (prediction.id && prediction.urls) this.learn(prediction);
    }
    this.panel.show(this);
    return response;
  }

  note(method, url) {
    // A stream URL grants access by itself, so do not show it.
    const path = new URL(url).pathname.replace(/(\/streams\/.{4}).+/, "$1…");
    const request = { method, path, at: performance.now() };
    this.requests.push(request);
    return request;
  }

  learn(prediction) {
    // Responses may arrive out of order: keep a terminal status.
    if (this.prediction && TERMINAL.has(this.prediction.status) && !TERMINAL.has(prediction.status)) return;
    this.prediction = prediction;
    if (this.cancelWanted) this.sendCancel();
  }

  async api(method, path, data) {
    const headers = { Authorization: `Bearer ${this.token}` };
    if (data) headers["Content-Type"] = "application/json";
    const body = data && JSON.stringify(data);
    const response = await this.fetch(`${settings.base_url}${path}`, { method, headers, body });
    const answer = await response.json();
    if (!response.ok) throw new Error(`${response.status}: ${answer.detail ?? answer.title}`);
    return answer;
  }

  // The stream ends slightly before the prediction has its final status.
  async untilEnded() {
    while (!TERMINAL.has(this.prediction.status)) {
      await this.api("GET", `/predictions/${this.prediction.id}`);
      if (!TERMINAL.has(this.prediction.status)) await sleep(POLL_MS);
    }
    return this.prediction;
  }

  cancel() {
    this.cancelWanted = true;
    if (this.prediction) this.sendCancel();
  }

  async sendCancel() {
    if (this.cancelSent || TERMINAL.has(this.prediction.status)) return;
    this.cancelSent = true;
    try {
      if (this.replicate) await this.replicate.predictions.cancel(this.prediction.id);
      else await this.api("POST", `/predictions/${this.prediction.id}/cancel`);
    } catch (error) {
      this.panel.complain(error);
    }
  }

  // Records the time of the first visible output.
  first() {
    if (this.firstAt !== null) return;
    this.firstAt = performance.now();
    this.panel.show(this);
  }
}

// --- The two ways to run ------------------------------------------------------------------------------------------

const withFetch = {
  async text(run, write) {
    const prediction = await run.api("POST", `/models/${settings.models.text}/predictions`, { input: run.input });
    const request = run.note("GET", prediction.urls.stream);
    request.status = "EventSource";
    await new Promise((resolve, reject) => {
      const source = new EventSource(prediction.urls.stream);
      let lost = 0;
      const end = (settle, value) => {
        source.close();
        request.ms = performance.now() - request.at;
        settle(value);
      };
      source.addEventListener("output", (event) => {
        lost = 0;
        write(event.data);
      });
      source.addEventListener("done", () => end(resolve));
      source.addEventListener("error", (event) => {
        // An error of the model has data. A lost connection has none, and the browser reconnects by itself.
        if (event.data) end(reject, new Error(JSON.parse(event.data).detail));
        else if (source.readyState === EventSource.CLOSED || ++lost > MOST_LOSSES) {
          end(reject, new Error("The stream could not be read."));
        }
      });
    });
  },

  async image(run) {
    await run.api("POST", `/models/${settings.models.image}/predictions`, { input: run.input });
    const { output } = await run.untilEnded();
    return output;
  },
};

const withClient = {
  async text(run, write) {
    run.replicate = await client(run);
    for await (const event of run.replicate.stream(settings.models.text, { input: run.input })) {
      if (event.event === "output") write(event.data);
    }
  },

  async image(run) {
    run.replicate = await client(run);
    const wait = { mode: "poll", interval: POLL_MS };
    const output = await run.replicate.run(settings.models.image, { input: run.input, wait });
    return output?.map(String);
  },
};

async function client(run) {
  const { default: Replicate } = await import("./replicate.js");
  return new Replicate({ auth: run.token, baseUrl: settings.base_url, fetch: run.fetch });
}

// --- A panel: a form, a result and its details -------------------------------------------------------------------

class Panel {
  constructor(kind) {
    this.kind = kind;
    this.element = document.getElementById(kind);
    this.element.append($("#details").content.cloneNode(true));
    for (const block of this.element.querySelectorAll(".block")) {
      copies($(".copy", block), () => $("pre", block).textContent);
    }
    this.output = $(".result", this.element);
    this.current = null;
    this.cancelWanted = false; // may be set before the run exists
    $(".model", this.element).textContent = settings.models[kind];
    $("form", this.element).addEventListener("submit", (event) => {
      event.preventDefault();
      this.run();
    });
    $(".cancel", this.element).addEventListener("click", () => {
      $(".cancel", this.element).disabled = true;
      this.cancelWanted = true;
      this.current?.cancel();
    });
    $(".other button", this.element).addEventListener("click", () => this.askAsOther());
  }

  input() {
    const seed = $(".seed", this.element).value;
    return {
      prompt: $(".prompt", this.element).value,
      ...(this.kind === "text" && { max_tokens: TEXT_TOKENS }),
      ...(seed !== "" && { seed: Number(seed) }),
    };
  }

  // The page begins with a result. The demo made the same run at its start, so this is a hit, or joins it.
  async preload() {
    await this.run(settings.preload[this.kind]);
    const note = $(".note", this.element);
    note.textContent = `Seed ${settings.preload[this.kind].seed}, run when the demo started and served from the cache. The button starts a run of its own.`;
    note.hidden = !this.last?.prediction;
    this.output.scrollTop = 0;
  }

  async run(input = this.input()) {
    if (this.current) return;
    const team = chosen("team");
    const way = chosen("client") === "npm" ? withClient : withFetch;
    this.begin();
    let run;
    try {
      run = this.current = new Run(this, team, await tokenOf(team), input);
      showToken();
      if (this.cancelWanted) run.cancel();
      if (this.kind === "text") await way.text(run, (chunk) => this.write(run, chunk));
      else await this.draw(run, await way.image(run));
      await run.untilEnded();
      if (run.prediction.status === "failed") throw new Error(run.prediction.error ?? "The prediction failed.");
    } catch (error) {
      this.complain(error);
    } finally {
      this.end(run);
    }
  }

  begin() {
    this.cancelWanted = false;
    this.output.replaceChildren();
    this.output.setAttribute("aria-busy", "true");
    $(".run", this.element).disabled = true;
    $(".cancel", this.element).disabled = false;
    $(".problem", this.element).hidden = true;
    $(".note", this.element).hidden = true;
    $(".other", this.element).hidden = true;
    $(".other p", this.element).textContent = "";
    this.status("starting");
  }

  end(run) {
    this.current = null;
    this.output.removeAttribute("aria-busy");
    $(".run", this.element).disabled = false;
    $(".cancel", this.element).disabled = true;
    if (!run) return;
    run.endedAt = performance.now();
    this.last = run;
    this.show(run);
    if (run.prediction) {
      $(".other", this.element).hidden = false;
      $(".other button", this.element).textContent = `Request it as team ${otherThan(run.team)}`;
    }
  }

  write(run, chunk) {
    run.first();
    const follow = this.output.scrollHeight - this.output.scrollTop - this.output.clientHeight < 40;
    this.output.append(chunk);
    if (follow) this.output.scrollTop = this.output.scrollHeight;
  }

  async draw(run, output) {
    if (!output?.length) return;
    const image = new Image();
    image.src = output[0];
    image.alt = run.input.prompt;
    await image.decode();
    run.first();
    this.output.replaceChildren(image);
  }

  status(status) {
    this.element.dataset.status = status;
    $(".status", this.element).textContent = status;
  }

  complain(error) {
    const problem = $(".problem", this.element);
    problem.textContent = error.message;
    problem.hidden = false;
    this.status("failed");
  }

  show(run) {
    const { prediction, created } = run;
    const failed = !$(".problem", this.element).hidden;
    if (prediction) {
      // The stream is ahead of the last poll of the prediction.
      const streaming = prediction.status === "starting" && run.firstAt !== null;
      this.status(failed ? "failed" : streaming ? "processing" : prediction.status);
    }
    const took = [
      created && `created in ${shown(created.ms)}`,
      run.firstAt && `${this.kind === "text" ? "first word" : "image"} after ${shown(run.firstAt - run.began)}`,
      run.endedAt && `${failed ? "given up after" : "all done in"} ${shown(run.endedAt - run.began)}`,
    ];
    const facts = [
      ["Prediction", prediction?.id, "id whole"],
      ["Team", run.team, "team"],
      ["Key", short(run.token), "key"],
      ["Cache-Status", created && (created.headers.get("Cache-Status") ?? "not sent"), "cache whole"],
      ["Server-Timing", created && (created.headers.get("Server-Timing") ?? "not sent"), "server whole"],
      ["Measured here", took.filter(Boolean).join(", "), "measured whole"],
    ];
    $(".facts", this.element).replaceChildren(...facts.filter(([, value]) => value).map(fact));
    $(".requests ol", this.element).replaceChildren(...run.requests.map(line));
    $(".requests summary", this.element).textContent = `Requests (${run.requests.length})`;
    $(".raw", this.element).hidden = !prediction;
    $(".raw pre", this.element).textContent = JSON.stringify(prediction, null, 2);
  }

  // Requests the prediction as another team. The expected response is the 404 of an unknown id.
  async askAsOther() {
    const run = this.last;
    const team = otherThan(run.team);
    const say = $(".other p", this.element);
    try {
      const headers = { Authorization: `Bearer ${await tokenOf(team)}` };
      const response = await reach(`${settings.base_url}/predictions/${run.prediction.id}`, { headers });
      const answer = await response.json();
      const meaning = response.status === 404
        ? ` As it should be: to team ${team}, a prediction of team ${run.team} does not exist.`
        : "";
      say.textContent = `${response.status} ${answer.detail ?? answer.status}${meaning}`;
    } catch (error) {
      say.textContent = error.message;
    }
  }
}

// --- The bar on top -----------------------------------------------------------------------------------------------

const chosen = (name) => $(`input[name="${name}"]:checked`).value;
const otherThan = (team) => settings.teams.find((name) => name !== team);

function showTeams() {
  for (const [index, team] of settings.teams.entries()) {
    const label = document.createElement("label");
    const radio = Object.assign(document.createElement("input"), { type: "radio", name: "team", value: team, checked: index === 0 });
    label.append(radio, team);
    $("#teams").append(label);
  }
  $("#teams").addEventListener("change", showToken);
}

function showToken() {
  const known = tokens.get(chosen("team"));
  $("#token").textContent = known ? short(known.token) : "none";
}

function showCode() {
  const npm = chosen("client") === "npm";
  for (const kind of ["text", "image"]) {
    $(`#${kind} .code pre`).textContent = snippet(kind, npm, settings.models[kind], settings.base_url);
  }
}

async function start() {
  settings = await (await fetch("demo.json")).json();
  $("#base-url").textContent = settings.base_url;
  showTeams();
  copies($("#copy-base-url"), () => settings.base_url);
  $("#usage-link").href = settings.usage_url;
  const panels = [new Panel("text"), new Panel("image")];
  showScenarios($("#scenarios"), settings);
  if (settings.npm_client) {
    const { version } = await import("./replicate.js");
    $("#npm-name").textContent = `replicate ${version}`;
    $("#clients").hidden = false;
    $("#clients").addEventListener("change", showCode);
  }
  showCode();
  await tokenOf(chosen("team"));
  showToken();
  await Promise.all(panels.map((panel) => panel.preload()));
  document.documentElement.dataset.ready = "true";
}

start().catch((error) => {
  $("#trouble").textContent = `The page could not start: ${error.message}`;
  $("#trouble").hidden = false;
});
