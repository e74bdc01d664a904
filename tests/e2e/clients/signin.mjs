// Signs a user in at a provider, in Chromium, from a page that has no server, and says what the page shows then.

import { chromium } from "playwright-core";
import { play } from "./script.mjs";

const args = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"];

await play({
  async signIn({ executable, profile, page: address, user, settings }) {
    const context = await chromium.launchPersistentContext(profile, { executablePath: executable, args, headless: true });
    try {
      const page = await context.newPage();
      page.setDefaultTimeout(60_000);
      // The provider's forms name fonts of another host.
      const own = [address, settings.issuer, new URL(settings.gateway).origin];
      await page.route(
        (url) => !own.includes(url.origin),
        (route) => route.abort(),
      );
      await page.goto(`${address}/?${new URLSearchParams({ settings: JSON.stringify(settings) })}`);
      await page.fill("input[name=login]", user);
      await page.fill("input[name=password]", "any");
      await page.click("button[type=submit]");
      await page.click("button[type=submit]:has-text('Continue')");
      return JSON.parse(await page.textContent("pre"));
    } finally {
      await context.close();
    }
  },
});
