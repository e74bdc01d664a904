// Uses the demo's page in a real Chromium, as a visitor would, and prints what it saw as one line of JSON.
// tests/e2e/test_demo.py runs it: node drive.mjs SCENARIO, with the rest in the variable ARGUMENTS.
import { createRequire } from "node:module";

const { address, playwright, chromium: executablePath, folder } = JSON.parse(process.env.ARGUMENTS);
const { chromium } = createRequire(`${playwright}/`)("playwright-core");
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const TIMEOUT = 60_000;

const scenarios = {
  // Text and image, with fetch and EventSource.
  async fetch(page) {
    return { text: await run(page, "text"), image: await run(page, "image") };
  },

  // The same through the npm client.
  async npm(page) {
    await page.getByLabel("npm replicate").check();
    return { text: await run(page, "text"), image: await run(page, "image") };
  },

  async cancel(page) {
    // Both runs last until they are canceled, however slow the browser is.
    await page.evaluate(() => {
      const network = window.fetch;
      window.fetch = (url, init = {}) => {
        const { input } = init.method === "POST" && init.body ? JSON.parse(init.body) : {};
        if (!input) return network(url, init);
        const long = "max_tokens" in input ? { max_tokens: 4096, token_delay: 0.1 } : { duration: 600 };
        return network(url, { ...init, body: JSON.stringify({ input: { ...input, ...long } }) });
      };
    });
    // Without a seed each is a run of its own. What was run before would be there at once, and past cancelling.
    for (const seed of await page.locator("input.seed").all()) await seed.fill("");
    await page.getByRole("button", { name: "Stream text" }).click();
    await page.waitForFunction(() => document.querySelector("#text-output").textContent.length > 20);
    await page.locator("#text .cancel").click();
    const text = await seen(page, "text");
    // At once, before the page can know the prediction's id.
    await page.evaluate(() => {
      document.querySelector("#image .run").click();
      document.querySelector("#image .cancel").click();
    });
    return { text, image: await seen(page, "image") };
  },

  async cancel_npm(page) {
    await page.getByLabel("npm replicate").check();
    return scenarios.cancel(page);
  },

  // A run of one team, asked for by the other.
  async other(page) {
    const text = await run(page, "text");
    await page.locator("#text .other button").click();
    await page.waitForFunction(() => document.querySelector("#text .other p").textContent !== "");
    return { text, said: await page.locator("#text .other p").textContent() };
  },

  // The second team's own run.
  async second(page) {
    await page.getByLabel("lab", { exact: true }).check();
    return { text: await run(page, "text") };
  },

  // A visitor who comes back when the token is about to end.
  async late(page) {
    const first = await run(page, "image");
    await page.clock.setSystemTime(Date.now() + 9.5 * 60_000);
    return { first, second: await run(page, "image") };
  },

  // What the page offers where nothing was built.
  async offers(page) {
    return { npm: await page.locator("#clients").isVisible() };
  },

  // A stream that is open until the test has seen enough.
  async open(page) {
    await page.getByRole("button", { name: "Stream text" }).click();
    await page.waitForFunction(() => document.querySelector("#text-output").textContent.length > 20);
    process.stdout.write("streaming\n");
    await new Promise((resolve) => process.stdin.once("data", resolve));
    return {};
  },

  // The page as it is when it was opened.
  async first(page) {
    return { text: await seen(page, "text"), image: await seen(page, "image"), usage: await page.locator("#usage-link").getAttribute("href") };
  },

  // Every scenario of the list: what its button brought.
  async scenarios(page) {
    const outcomes = {};
    for (const item of await page.locator("#scenarios li").all()) {
      await item.getByRole("button").click();
      await item.locator('.outcome[data-ended="true"]').waitFor();
      const name = (await item.getAttribute("id")).replace("scenario-", "");
      outcomes[name] = await item.locator(".outcome p").allTextContents();
    }
    const pictures = await page.locator("#scenario-file img").evaluateAll((images) => images.map((image) => image.naturalWidth));
    return { outcomes, pictures };
  },

  // What the copy buttons put into the clipboard.
  async copy(page) {
    await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
    const clipboard = () => page.evaluate(() => navigator.clipboard.readText());
    await page.locator("#copy-base-url").click();
    await page.getByText("Copied").waitFor();
    const base = await clipboard();
    await page.locator("#text .code summary").click();
    await page.locator("#text .code .copy").click();
    await page.locator("#text .code").getByText("Copied").waitFor();
    return { base, code: await clipboard() };
  },

  // Pictures of the page, for eyes.
  async pictures(page) {
    await scenarios.scenarios(page);
    const wider = [];
    for (const [size, width] of [["desktop", 1280], ["phone", 390]]) {
      for (const colorScheme of ["light", "dark"]) {
        await page.setViewportSize({ width, height: 900 });
        await page.emulateMedia({ colorScheme });
        await page.screenshot({ path: `${folder}/${size}-${colorScheme}.png`, fullPage: true });
        wider.push(await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth));
      }
    }
    return { wider };
  },
};

async function run(page, kind) {
  await page.locator(`#${kind} .run`).click();
  return seen(page, kind);
}

async function seen(page, kind) {
  // Not busy any more, and the end is shown.
  await page.waitForFunction((id) => !document.querySelector(`#${id} .result`).ariaBusy && document.querySelector(`#${id} .facts .measured`)?.textContent.match(/all done|given up/), kind);
  return page.evaluate((id) => {
    const panel = document.getElementById(id);
    const fact = (name) => panel.querySelector(`.facts .${name} dd`)?.textContent ?? null;
    const image = panel.querySelector(".result img");
    return {
      status: panel.querySelector(".status").textContent,
      problem: panel.querySelector(".problem").hidden ? null : panel.querySelector(".problem").textContent,
      output: panel.querySelector(".result").textContent,
      image: image && { source: image.src, width: image.naturalWidth, height: image.naturalHeight, alt: image.alt },
      id: fact("id"),
      team: fact("team"),
      key: fact("key"),
      cache: fact("cache"),
      server: fact("server"),
      measured: fact("measured"),
      requests: [...panel.querySelectorAll(".requests li")].map((item) => item.textContent),
      raw: JSON.parse(panel.querySelector(".raw pre").textContent),
    };
  }, kind);
}

const browser = await chromium.launch({ executablePath, timeout: TIMEOUT, args: FLAGS });
try {
  const page = await (await browser.newContext()).newPage();
  page.setDefaultTimeout(TIMEOUT);
  const complaints = [];
  const asked = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => asked.push(request.url()));
  await page.goto(address);
  await page.waitForSelector("html[data-ready]");
  const result = await scenarios[process.argv[2]](page);
  process.stdout.write(`${JSON.stringify({ result, address: page.url(), complaints, asked })}\n`);
} finally {
  await browser.close();
}
