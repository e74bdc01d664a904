// The console in Chromium: what it shows, what it asks for, what the browser's console says, and what axe finds.

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const axeSource = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const args = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
export const wide = { width: 1280, height: 900 };
export const phone = { width: 390, height: 844 };

/** Open a browser, do something with a page of it, and tell what it asked for and complained of. */
export async function inBrowser({ executable, profile, scheme = "light", viewport = wide }, act) {
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: executable,
    timeout: 60_000,
    args,
    headless: true,
    colorScheme: scheme,
    viewport,
    isMobile: viewport === phone,
    hasTouch: viewport === phone,
  });
  context.setDefaultTimeout(60_000);
  try {
    const page = await context.newPage();
    const complaints = [];
    page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
    page.on("pageerror", (error) => complaints.push(String(error)));
    const requests = [];
    const devtools = await context.newCDPSession(page);
    await devtools.send("Network.enable");
    devtools.on("Network.requestWillBeSent", ({ request }) => requests.push(`${request.method} ${request.url}`));
    const result = await act(page, context);
    return { ...result, complaints, requests };
  } finally {
    await context.close();
  }
}

export async function signIn(page, secret) {
  await page.getByLabel("Operators' token, or a key of your team").fill(secret);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForSelector("h1");
}

export const live = (page) => page.waitForFunction(() => document.getElementById("state")?.textContent === "Live.");

/** The text of an element, with titles in place of what is shown shortened. */
const reading = () => {
  window.exactly = (element) => {
    const copy = element.cloneNode(true);
    copy.querySelectorAll("[title]").forEach((each) => each.replaceChildren(each.title));
    return copy.textContent.trim().replace(/\s+/g, " ");
  };
};

/** Everything that stands in the tables and tiles, by the id of the part. */
export const read = async (page) => {
  await page.evaluate(reading);
  // A phone's layout grows with what is too wide, so it is compared with the screen.
  return page.evaluate((width) => ({
    heading: document.querySelector("h1").textContent.trim(),
    tables: Object.fromEntries(
      [...document.querySelectorAll("tbody[id]")].map((body) => [
        body.id,
        [...body.rows].map((row) => [...row.cells].map((cell) => window.exactly(cell))),
      ]),
    ),
    tiles: Object.fromEntries(
      [...document.querySelectorAll(".tiles > div")].map((tile) => [
        tile.querySelector("dt").textContent,
        window.exactly(tile.querySelector("dd")),
      ]),
    ),
    charts: [...document.querySelectorAll(".chart svg")].map((svg) => ({
      words: svg.getAttribute("aria-label"),
      bars: svg.querySelectorAll(".bar rect").length,
      fills: [...new Set([...svg.querySelectorAll(".bar rect")].map((bar) => getComputedStyle(bar).fill))],
      width: svg.getBoundingClientRect().width,
    })),
    ground: getComputedStyle(document.body).backgroundColor,
    overflow: document.documentElement.scrollWidth - width,
    // What scrolls sideways in a box of its own.
    wide: [...document.querySelectorAll("body *")]
      .filter((each) => each.tagName !== "THEAD" && each.clientWidth && each.scrollWidth > each.clientWidth && getComputedStyle(each).overflowX !== "visible")
      .map((each) => each.id || each.getAttribute("aria-label") || each.className || each.tagName),
    wideTables: [...document.querySelectorAll(".scroll")]
      .filter((box) => box.querySelector("table") && box.scrollWidth > box.clientWidth)
      .map((box) => [box.querySelector("tbody").id, box.scrollWidth, box.clientWidth].join(" ")),
    cookie: document.cookie,
    text: document.body.textContent,
    pictures: document.images.length,
  }), page.viewportSize().width);
};

export async function violations(page, options = {}) {
  await page.evaluate(await readFile(axeSource, "utf8"));
  // Otherwise most of the time goes into selectors of all elements that are as they should be.
  const found = await page.evaluate((options) => window.axe.run({ resultTypes: ["violations"], ...options }), options);
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" | ")}`);
}
