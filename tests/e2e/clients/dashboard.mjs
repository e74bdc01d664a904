// Looks at the console in Chromium: what it shows, what it asks for, what the browser's console says, and what axe finds.

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";
import { baseUrl, key, play } from "./script.mjs";

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
const wide = { width: 1280, height: 900 };
const phone = { width: 390, height: 844 };

/** Open a browser, do something with a page of it, and tell what it asked for and complained of. */
async function inBrowser({ executable, profile, scheme = "light", viewport = wide }, act) {
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: executable,
    args,
    headless: true,
    colorScheme: scheme,
    viewport,
    isMobile: viewport === phone,
    hasTouch: viewport === phone,
  });
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

async function signIn(page, secret) {
  await page.getByLabel("Operators' token, or a key of your team").fill(secret);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForSelector("h1");
}

const live = (page) => page.waitForFunction(() => document.getElementById("state")?.textContent === "Live.");

/** The text of an element, with titles in place of what is shown shortened. */
const reading = () => {
  window.exactly = (element) => {
    const copy = element.cloneNode(true);
    copy.querySelectorAll("[title]").forEach((each) => each.replaceChildren(each.title));
    return copy.textContent.trim().replace(/\s+/g, " ");
  };
};

/** Everything that stands in the tables and tiles, by the id of the part. */
const read = async (page) => {
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
    cookie: document.cookie,
  }), page.viewportSize().width);
};

async function violations(page) {
  await page.evaluate(await readFile(axeSource, "utf8"));
  const found = await page.evaluate(() => window.axe.run());
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" | ")}`);
}

await play({
  /** Open pages one after the other; read each, and let axe look at it. */
  async visit({ address, secret, small, paths, screenshots, ...how }) {
    return inBrowser({ ...how, viewport: small ? phone : wide }, async (page) => {
      const pages = {};
      if (secret) {
        await page.goto(address);
        await signIn(page, secret);
      }
      for (const path of paths) {
        await page.goto(`${address}${path}`);
        pages[path] = { ...(await read(page)), violations: await violations(page) };
        if (screenshots) await page.screenshot({ path: `${screenshots}${path.replaceAll(/\W/g, "-")}.png`, fullPage: true });
      }
      return { pages };
    });
  },

  /** Sign in if there is a form, open every table, and read the page. */
  async look({ address, secret, small, screenshot, ...how }) {
    return inBrowser({ ...how, viewport: small ? phone : wide }, async (page) => {
      await page.goto(address);
      const atDoor = secret ? await violations(page) : [];
      if (secret) await signIn(page, secret);
      await live(page);
      if (screenshot) {
        const clip = { x: 0, y: 0, width: page.viewportSize().width, height: small ? phone.height : 1140 };
        await page.screenshot({ path: screenshot, fullPage: true, clip });
        return {};
      }
      await page.evaluate(() => document.querySelectorAll("details").forEach((each) => (each.open = true)));
      const seen = await read(page);
      return { ...seen, violations: [...atDoor, ...(await violations(page))] };
    });
  },

  /** Search a prediction and open it; create, rotate and revoke a key, as its manager would. */
  async manage({ address, secret, target, prediction: id, ...how }) {
    return inBrowser(how, async (page) => {
      await page.goto(address);
      if (secret) await signIn(page, secret);
      await page.getByRole("link", { name: "Predictions" }).click();
      await page.getByLabel("Target").fill(target);
      await page.getByRole("button", { name: "Search" }).click();
      await page.waitForURL(/target=/);
      const found = (await read(page)).tables.predictions;
      await page.locator(`#predictions a[href$="/${id}"]`).click();
      await page.waitForSelector("#timeline");
      const prediction = await read(page);
      await page.getByRole("link", { name: "Keys" }).click();
      await page.getByText("Create a key").click();
      await page.getByLabel("Name").fill("from the console");
      await page.getByLabel("requests_per_minute").fill("many");
      await page.getByRole("button", { name: "Create key" }).click();
      const problem = await page.getByRole("alert").textContent();
      await page.getByLabel("requests_per_minute").fill("60");
      await page.getByRole("button", { name: "Create key" }).click();
      const created = await page.locator("#secret").textContent();
      await page.getByRole("link", { name: "All keys" }).click();
      await page.getByRole("button", { name: "Rotate from the console" }).click();
      const rotated = await page.locator("#secret").textContent();
      await page.getByRole("link", { name: "All keys" }).click();
      const before = (await read(page)).tables.keys;
      await page.getByLabel("Revoke from the console").first().click();
      await page.getByRole("button", { name: "Revoke from the console now" }).first().click();
      await page.waitForURL("**/keys");
      const after = (await read(page)).tables.keys;
      await page.getByRole("link", { name: "Audit" }).click();
      const { tables, heading } = await read(page);
      return { found, prediction, problem, created, rotated, before, after, audit: tables.audit, heading };
    });
  },

  /** See the figures change by themselves while the page stays; then pause, and see them stay. */
  async watch({ address, body, ...how }) {
    const create = () =>
      fetch(`${baseUrl}/predictions`, {
        method: "POST",
        headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json", Prefer: "wait" },
        body: JSON.stringify(body),
      });
    return inBrowser(how, async (page) => {
      await page.goto(address);
      await live(page);
      await page.evaluate(() => (document.querySelector("details").open = true));
      const before = await read(page);
      await create();
      await page.waitForFunction(
        (was) =>
          [...document.querySelectorAll(".tiles > div")]
            .find((tile) => tile.querySelector("dt").textContent === "Predictions")
            .querySelector("dd").textContent !== was,
        before.tiles.Predictions,
      );
      const after = await read(page);
      const stillOpen = await page.evaluate(() => document.querySelector("details").open);
      await page.getByRole("button", { name: "Pause updates" }).click();
      await create();
      await page.waitForTimeout(4500);
      const paused = await read(page);
      return { before: before.tiles, after: after.tiles, paused: paused.tiles, stillOpen };
    });
  },

  /** Go through the page by Tab alone; say where the focus came, and whether it could be seen. */
  async tab({ address, steps, ...how }) {
    return inBrowser(how, async (page) => {
      await page.goto(address);
      await live(page);
      const stops = [];
      for (let step = 0; step < steps; step += 1) {
        await page.keyboard.press("Tab");
        stops.push(
          await page.evaluate(() => {
            const { activeElement } = document;
            const { outlineStyle } = getComputedStyle(activeElement);
            return { tag: activeElement.tagName, text: activeElement.textContent.trim().slice(0, 40), outlineStyle };
          }),
        );
      }
      return { stops };
    });
  },

  /** For each person: ask for a page, sign in at the issuer with the keyboard, look at pages, and sign out. */
  async issuer({ address, asked, issuer, people, paths, ...how }) {
    return inBrowser(how, async (page, context) => {
      page.setDefaultTimeout(15_000);
      const { origin } = new URL(address);
      // The provider's forms name fonts of another host.
      await page.route(
        (url) => ![origin, issuer].includes(url.origin),
        (route) => route.abort(),
      );
      const seen = {};
      for (const { user, scheme } of people) {
        await context.clearCookies();
        await page.emulateMedia({ colorScheme: scheme });
        await page.goto(`${address}${asked}`);
        const found = await violations(page);
        const link = page.getByRole("link", { name: /^Sign in with / });
        const named = await link.textContent();
        while (!(await link.evaluate((element) => element === document.activeElement))) await page.keyboard.press("Tab");
        const outlineStyle = await link.evaluate((element) => getComputedStyle(element).outlineStyle);
        await page.keyboard.press("Enter");
        await page.fill("input[name=login]", user);
        await page.fill("input[name=password]", "any");
        await page.click("button[type=submit]");
        await page.click("button[type=submit]:has-text('Continue')");
        await page.waitForURL(`${address}${asked}`);
        const cookies = await context.cookies(address);
        const shown = {};
        for (const path of paths) {
          const answer = await page.goto(`${origin}${path}`);
          shown[path] = [answer.status(), await page.evaluate(() => document.body.innerText.includes("alpha"))];
        }
        await page.goto(address);
        await page.getByRole("button", { name: "Sign out" }).click();
        await page.waitForURL("**/sign-in");
        await page.goto(`${address}/keys`);
        seen[user] = { named, outlineStyle, violations: found, cookies, shown, afterwards: page.url() };
      }
      return { seen };
    });
  },

  /** Sign in, sign out, and try what is then still open. */
  async leave({ address, secret, ...how }) {
    return inBrowser(how, async (page, context) => {
      await page.goto(address);
      const asked = page.url();
      await signIn(page, secret);
      await live(page);
      const cookies = await context.cookies();
      await page.getByRole("button", { name: "Sign out" }).click();
      await page.waitForURL("**/sign-in");
      await page.goto(address);
      return { asked, cookies, afterwards: page.url() };
    });
  },
});
