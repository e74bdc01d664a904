// Uses the page of examples/vite as a visitor would.

import { chromium } from "playwright-core";
import { play } from "./script.mjs";

await play({
  visit: async ({ executable, address, picture }) => {
    const browser = await chromium.launch({ executablePath: executable, args: ["--no-sandbox", "--disable-gpu", "--no-first-run"] });
    try {
      const page = await browser.newPage();
      page.setDefaultTimeout(60_000);
      const complaints = [];
      page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
      page.on("pageerror", (error) => complaints.push(String(error)));
      let tokens = 0;
      page.on("request", (request) => (tokens += request.url().endsWith("/api/gateway-token")));
      await page.goto(address);
      const stream = async () => {
        await page.getByRole("button", { name: "Stream" }).click();
        await page.locator("#text button:enabled").waitFor();
        return page.locator("#text output").textContent();
      };
      const text = await stream();
      await page.locator('input[type="file"]').setInputFiles(picture);
      await page.getByRole("button", { name: "Enlarge" }).click();
      await page.locator("#image button:enabled").waitFor();
      const image = await page.locator("#image output").evaluate((output) => output.querySelector("img")?.naturalWidth ?? output.textContent);
      const before = tokens;
      await page.clock.setSystemTime(Date.now() + 9.7 * 60_000);
      const later = await stream();
      return { text, image, before, after: tokens, later, complaints };
    } finally {
      await browser.close();
    }
  },
});
