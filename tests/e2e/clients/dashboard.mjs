// Looks at the console in Chromium, and uses it.

import { readFile } from "node:fs/promises";
import { inBrowser, live, phone, read, signIn, violations, wide } from "./console.mjs";
import { baseUrl, key, play } from "./script.mjs";

await play({
  /** Open pages one after the other; read each, and let axe look at it. Those of `both` are seen in both schemes. */
  async visit({ address, secret, small, scheme = "light", both = [], paths, screenshots, ...how }) {
    return inBrowser({ ...how, scheme, viewport: small ? phone : wide }, async (page) => {
      const pages = {};
      if (secret) {
        await page.goto(address);
        await signIn(page, secret);
      }
      for (const path of paths) {
        await page.goto(`${address}${path}`);
        await page.evaluate(() => document.querySelectorAll("details").forEach((each) => (each.open = true)));
        const seen = await read(page);
        pages[path] = { ...seen, violations: await violations(page) };
        if (screenshots) await page.screenshot({ path: `${screenshots}${path.replaceAll(/\W/g, "-")}.png`, fullPage: true });
        if (!both.includes(path)) continue;
        await page.emulateMedia({ colorScheme: scheme === "light" ? "dark" : "light" });
        const { ground, charts } = await read(page);
        pages[path].other = { ground, charts, violations: await violations(page, { runOnly: ["color-contrast"] }) };
        await page.emulateMedia({ colorScheme: scheme });
      }
      return { pages };
    });
  },

  /** Sign in if there is a form, open every table, and read the page. */
  async look({ address, secret, small, screenshot, top, ...how }) {
    return inBrowser({ ...how, viewport: small ? phone : wide }, async (page) => {
      await page.goto(address);
      const atDoor = secret ? await violations(page) : [];
      if (secret) await signIn(page, secret);
      await live(page);
      if (screenshot) {
        const y = top ? (await page.locator(top).boundingBox()).y - 24 : 0;
        const clip = { x: 0, y, width: page.viewportSize().width, height: small ? phone.height : 1140 };
        await page.screenshot({ path: screenshot, fullPage: true, clip });
        return {};
      }
      await page.evaluate(() => document.querySelectorAll("details").forEach((each) => (each.open = true)));
      const seen = await read(page);
      return { ...seen, violations: [...atDoor, ...(await violations(page))] };
    });
  },

  /** Everything that an operator can do in the console, in one session. */
  async operate({ address, secret, filters, prediction, picture, months, groupings, delivery, create, ...how }) {
    return inBrowser(how, async (page, context) => {
      const seen = {};
      const tables = async () => (await read(page)).tables;
      await page.goto(address);
      seen.asked = page.url();
      await signIn(page, secret);
      await live(page);
      seen.users = (await tables()).users;
      seen.cookies = await context.cookies();
      // Predictions: filters, and the list that updates itself.
      await page.getByRole("link", { name: "Predictions", exact: true }).click();
      for (const [label, value] of Object.entries(filters)) {
        const field = page.getByLabel(label, { exact: true });
        await ((await field.evaluate((each) => each.tagName)) === "SELECT" ? field.selectOption(value) : field.fill(value));
      }
      await page.getByRole("button", { name: "Search" }).click();
      await page.waitForURL(/target=/);
      seen.found = (await tables()).predictions;
      await live(page);
      const made = await fetch(`${baseUrl}/predictions`, {
        method: "POST",
        headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json", ...create.headers },
        body: JSON.stringify(create.body),
      });
      seen.made = (await made.json()).id;
      await page.waitForSelector(`#predictions a[href$="/${seen.made}"]`);
      seen.foundLater = (await tables()).predictions;
      await page.locator(`#predictions a[href$="/${prediction}"]`).click();
      await page.waitForSelector("#timeline");
      seen.prediction = await tables();
      // Outputs: the gallery, and the page of a picture.
      const shown = () =>
        page.evaluate(() =>
          Promise.all([...document.images].map((each) => ((each.loading = "eager"), each.decode().then(() => each.naturalWidth)))),
        );
      await page.getByRole("link", { name: "Outputs" }).click();
      seen.gallery = await shown();
      await page.locator(`.gallery a[href$="/${picture}"]`).first().click();
      await page.waitForSelector("#timeline");
      seen.picture = await shown();
      // Usage of another month, by each grouping.
      await page.getByRole("link", { name: "Usage" }).click();
      seen.usage = {};
      for (const by of groupings) {
        await page.locator('select[name="month"]').selectOption(months);
        await page.locator('select[name="by"]').selectOption(by);
        await page.getByRole("button", { name: "Show" }).click();
        await page.waitForURL((url) => url.searchParams.get("by") === by);
        seen.usage[by] = (await tables())["usage-rows"];
      }
      const downloading = page.waitForEvent("download");
      await page.getByRole("link", { name: "Download CSV" }).click();
      seen.csv = await readFile(await (await downloading).path(), "utf8");
      // Limits.
      await page.getByRole("link", { name: "Limits" }).click();
      seen.usedUp = await page.locator(".used-up").evaluateAll((rows) =>
        rows.map((row) => ({ text: row.innerText, color: getComputedStyle(row.cells[0]).color })),
      );
      // Webhooks.
      await page.getByRole("link", { name: "Webhooks" }).click();
      seen.deliveries = (await tables()).deliveries;
      await page.getByRole("button", { name: `Send again: ${delivery}` }).click();
      await page.waitForURL("**/webhooks");
      seen.deliveriesLater = (await tables()).deliveries;
      // Keys.
      await page.getByRole("link", { name: "Keys", exact: true }).click();
      await page.getByText("Create a key").click();
      await page.locator('select[name="team"]').selectOption("alpha");
      await page.getByLabel("Name", { exact: true }).fill("from the console");
      await page.getByLabel("requests_per_minute").fill("many");
      await page.getByRole("button", { name: "Create key" }).click();
      seen.problem = await page.getByRole("alert").textContent();
      await page.getByLabel("requests_per_minute").fill("60");
      await page.getByLabel("predict", { exact: true }).check();
      await page.getByLabel("keys", { exact: true }).check();
      await page.getByRole("button", { name: "Create key" }).click();
      seen.created = await page.locator("#secret").textContent();
      await page.getByRole("link", { name: "All keys" }).click();
      await page.getByRole("button", { name: "Rotate from the console" }).click();
      seen.rotated = await page.locator("#secret").textContent();
      await page.getByRole("link", { name: "All keys" }).click();
      const listed = await page.content();
      seen.shownAgain = [seen.created, seen.rotated].filter((secret) => listed.includes(secret));
      seen.before = (await tables()).keys;
      await page.getByRole("link", { name: "Nodes" }).click();
      seen.nodes = (await tables()).nodes;
      await page.getByRole("button", { name: "Sign out" }).click();
      await page.waitForURL("**/sign-in");
      await page.goto(address);
      seen.afterwards = page.url();
      return seen;
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

  /** A team lead creates a key; an operator revokes the lead's own; whose session then ends. */
  async lead({ address, secret, operator, name, ...how }) {
    return inBrowser(how, async (page, context) => {
      const seen = {};
      await page.goto(address);
      await signIn(page, secret);
      await live(page);
      seen.cookies = await context.cookies();
      seen.links = await page.getByRole("navigation").getByRole("link").allTextContents();
      seen.board = await read(page);
      await page.getByRole("link", { name: "Keys", exact: true }).click();
      await page.getByText("Create a key").click();
      await page.getByLabel("Name", { exact: true }).fill("by the lead");
      await page.getByRole("button", { name: "Create key" }).click();
      seen.created = await page.locator("#secret").textContent();
      await page.getByRole("link", { name: "All keys" }).click();
      seen.keys = (await read(page)).tables.keys;
      await page.getByRole("link", { name: "Audit" }).click();
      seen.audit = (await read(page)).tables.audit;
      await page.getByRole("button", { name: "Sign out" }).click();
      await page.waitForURL("**/sign-in");
      await signIn(page, operator);
      await page.getByRole("link", { name: "Keys", exact: true }).click();
      await page.getByLabel(`Revoke ${name}`, { exact: true }).first().click();
      await page.getByRole("button", { name: `Revoke now: ${name}` }).first().click();
      seen.revoked = await page.getByRole("status").textContent();
      await page.getByRole("link", { name: "look at it" }).click();
      seen.left = (await read(page)).tables.keys;
      await page.getByRole("button", { name: "Sign out" }).click();
      await page.waitForURL("**/sign-in");
      await signIn(page, secret);
      seen.refused = await page.getByRole("alert").textContent();
      return seen;
    });
  },
});
