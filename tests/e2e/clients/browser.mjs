// Opens a page in Chromium, runs scenarios in it, and says what they gave, what the console said and what was requested.

import { chromium } from "playwright-core";
import { baseUrl, key, play } from "./script.mjs";

const args = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Open a page, have something done with it, and say what the console said and what was requested. */
async function visit({ executable, profile, page: address }, act) {
  const options = { executablePath: executable, timeout: 60_000, args, headless: true };
  const context = await chromium.launchPersistentContext(profile, options);
  context.setDefaultTimeout(60_000);
  try {
    const page = await context.newPage();
    const complaints = [];
    page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
    page.on("pageerror", (error) => complaints.push(String(error)));
    const requests = [];
    const devtools = await context.newCDPSession(page);
    await devtools.send("Network.enable");
    devtools.on("Network.requestWillBeSent", ({ request }) => {
      requests.push({ method: request.method, url: request.url });
    });
    await page.goto(address);
    return { ...(await act(page)), complaints, requests };
  } finally {
    await context.close();
  }
}

await play({
  open: ({ scenarios, ...where }) =>
    visit(where, async (page) => {
      const results = [];
      for (const [name, given] of scenarios) {
        results.push(await page.evaluate(([...all]) => window.play(...all), [name, key, baseUrl, given ?? {}]));
      }
      const seen = await page.evaluate(() => ({
        texts: [...document.querySelectorAll("pre")].map(({ textContent }) => textContent),
        pictures: document.querySelectorAll("img").length,
      }));
      return { results, seen };
    }),

  // A page that acts by itself: what stands on it when its own server says so.
  watch: (where) =>
    visit(where, async (page) => {
      await page.evaluate(() => fetch("/hold"));
      return { text: await page.evaluate(() => document.body.textContent) };
    }),
});
