// A server and a browser for the tests, and what they do again and again.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { chromium } from "playwright-core";

const root = resolve(import.meta.dirname, "../../..");
const program = process.env.DIFFBIR ?? join(root, "target/release/diffbir");
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const shots = join(import.meta.dirname, "screenshots");
mkdirSync(shots, { recursive: true });

/** A picture of the examples. */
export const example = (name) => join(root, "examples", name);

/** A folder that is gone when the test is over. */
export function folder(test) {
  const path = mkdtempSync(join(tmpdir(), "diffbir-browser-"));
  test.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Runs `diffbir`. */
export function diffbir(...words) {
  const ran = spawnSync(program, words, { encoding: "utf8" });
  assert.equal(ran.status, 0, ran.stderr);
}

/** Starts a server of its own; gives its address. Files of models come from `mirror`, or from nowhere. */
export async function serve(test, ...words) {
  return serveFrom(test, folder(test), "http://127.0.0.1:9", ...words);
}

/** The same, with what it keeps in `data`: models in its folder `models`. */
export async function serveFrom(test, data, mirror, ...words) {
  const env = { ...process.env, DIFFBIR_MODELS: join(data, "models"), HF_HUB_CACHE: join(data, "hub"), DIFFBIR_MIRROR: mirror };
  const server = spawn(program, ["serve", "--port", "0", "--device", "cpu", "--data", data, ...words], { env });
  test.after(() => server.kill());
  let said = "";
  return new Promise((found, failed) => {
    server.stderr.on("data", (text) => {
      said += text;
      const address = said.match(/http:\/\/[\d.:]+\//);
      if (address) found(address[0]);
    });
    server.on("exit", () => failed(new Error(said)));
  });
}

/** Opens the page. What it says on the console, and every request to another place, fails the test. */
export async function open(test, address, { path = "", ...options } = {}) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"],
  });
  test.after(() => browser.close());
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, acceptDownloads: true, ...options });
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const page = await context.newPage();
  // A machine may have other things to do.
  page.setDefaultTimeout(120_000);
  const wrong = [];
  page.on("console", (message) => message.type() === "error" && wrong.push(message.text()));
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(address) && !/^(blob|data):/.test(url)) wrong.push(`asks ${url}`);
  });
  page.wrong = wrong;
  await page.goto(address + path);
  await page.waitForFunction(() => document.body.dataset.ready === "true");
  return page;
}

/** Looks for what keeps people out (axe), in light and in dark; keeps how the page looks under a name, if there is one. */
export async function accessible(page, state, name = null) {
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    if (name) await page.screenshot({ path: join(shots, `${name}-${colorScheme}.png`) });
    // By the debugger, which the page's own policy does not bind.
    const found = await page.evaluate(`${axe}; axe.run(document, { resultTypes: ["violations"] })`);
    const told = found.violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`);
    assert.deepEqual(told, [], `${state}, ${colorScheme}`);
  }
  await page.emulateMedia({ colorScheme: "light" });
}

/** Looks at a state of the page as phones, tablets and desks show it. */
export async function look(page, state) {
  const kept = page.viewportSize();
  for (const [width, height] of [[360, 740], [820, 1180], [1440, 900]]) {
    await page.setViewportSize({ width, height });
    await page.evaluate(() => scrollTo(0, 0));
    await fits(page);
    await accessible(page, `${state} at ${width} px`, `${state}-${width}`);
  }
  await page.setViewportSize(kept);
}

/** Whether nothing sticks out to the right. */
export async function fits(page) {
  const [whole, seen] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(whole <= seen, `${whole} px are wider than ${seen}`);
}
