// The page as people use it.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { copyFileSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { test } from "node:test";
import { accessible, diffbir, example, fits, folder, look, open, serve, serveFrom } from "./harness.mjs";

const CAT = example("chelsea-small.png");

/** Brings a picture, restores it and waits for the result. */
async function restore(page, file = CAT) {
  await page.setInputFiles("#file", file);
  await page.click("#go");
  await page.waitForSelector(".compare");
}

/** Sets options under "Advanced". */
async function set(page, options) {
  await page.locator("#advanced").evaluate((details) => (details.open = true));
  for (const [name, value] of Object.entries(options)) await page.fill(`#option-${name}`, value);
}

test("a picture is restored: progress, before and after, a download that equals the command line's", async (t) => {
  const page = await open(t, await serve(t));
  await look(page, "idle");
  await set(page, { steps: "1000", fidelity: "0", seed: "7" });
  await accessible(page, "advanced");
  await page.setInputFiles("#file", CAT);
  await page.waitForSelector("#chosen img");
  assert.match(await page.textContent("#chosen"), /112 × 75, will be 448 × 300/);
  await page.click("#go");
  await page.waitForFunction(() => /Step [1-9]\d* of 1000/.test(document.getElementById("eta").textContent));
  await page.waitForFunction(() => document.getElementById("preview").src.includes("/preview?step="));
  assert.ok((await page.getAttribute("#progress", "value")) > 0);
  await page.click("#advanced summary");
  await look(page, "working");
  await page.click("#cancel");
  await page.waitForSelector("#pick:not([hidden])");
  assert.equal(await page.locator("#history").isVisible(), false, "what was cancelled is gone");

  await set(page, { steps: "5", fidelity: "" });
  await page.click("#advanced summary");
  await restore(page);
  await look(page, "result");
  assert.match(await page.textContent(".facts"), /448 × 300.*seed 7/);
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("a.main")]);
  assert.equal(download.suggestedFilename(), "chelsea-small_restored.png");
  const place = join(folder(t), "out.png");
  diffbir("restore", CAT, "-o", place, "--device", "cpu", "--seed", "7", "--steps", "5");
  assert.ok(readFileSync(await download.path()).equals(readFileSync(place)));
  // The same picture again, with another seed.
  assert.equal(await page.textContent("#go"), "Restore again");
  await page.fill("#option-seed", "8");
  await page.click("#go");
  await page.waitForFunction(() => document.querySelector(".facts")?.textContent.includes("seed 8"));
  assert.deepEqual(page.wrong, []);
});

test("the line moves, the layers zoom and pan in step, stage 1 is a third layer", async (t) => {
  const page = await open(t, await serve(t));
  await restore(page);
  const after = page.locator(".stack img").last();
  const clip = () => after.evaluate((image) => parseFloat(image.style.clipPath.split(" ").at(-1)));
  const shape = () => page.$$eval(".stack img", (images) => images.map((image) => `${image.style.width} ${image.style.transform}`));
  const middle = await clip();
  await page.focus(".split");
  await page.keyboard.press("ArrowLeft");
  assert.ok((await clip()) < middle);
  const box = await page.locator(".view").boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.7, box.y + box.height / 2, { steps: 4 });
  await page.mouse.up();
  assert.ok((await clip()) > middle, "dragged");
  const fit = await shape();
  await page.mouse.wheel(0, -500);
  await page.waitForFunction((was) => document.querySelector(".stack img").style.width !== was.split(" ")[0], fit[0]);
  await page.focus(".view");
  await page.keyboard.press("+");
  await page.keyboard.press("ArrowRight");
  const near = await shape();
  assert.ok(near.every((one) => one === near[0]) && near[0] !== fit[0], `in step: ${near}`);
  await page.keyboard.press("1");
  assert.equal(await page.textContent(".zoom"), "204 %", "what fits is never made smaller than that");
  await page.keyboard.press("0");
  assert.deepEqual(await shape(), fit);
  await page.click("text=Stage 1");
  assert.deepEqual(await page.$$eval(".stack img", (images) => images.map((image) => image.hidden)), [true, false, false]);
  assert.deepEqual(page.wrong, []);
});

test("what goes wrong is said, and the next picture works", async (t) => {
  const page = await open(t, await serve(t));
  await page.setInputFiles("#file", example("README.md"));
  await page.click("#go");
  await page.waitForSelector("#failed:not([hidden])");
  assert.match(await page.textContent("#reason"), /README.md: is not a picture/);
  await look(page, "error");
  // No settings make a picture of it.
  assert.deepEqual([await page.locator("#again").isVisible(), await page.locator("#go").isDisabled()], [false, true]);
  assert.match(await page.getAttribute("#other", "class"), /main/);
  // Settings that do not go together are said in the command line's words, and can be changed.
  await page.click("#other");
  await set(page, { s_churn: "3" });
  await page.setInputFiles("#file", CAT);
  await page.click("#go");
  await page.waitForSelector("#failed:not([hidden])");
  assert.match(await page.textContent("#reason"), /--s-churn: edm_dpm\+\+_3m_sde does not heed it/);
  await set(page, { s_churn: "" });
  assert.doesNotMatch(await page.getAttribute("#other", "class") ?? "", /main/, "settings come first");
  await page.click("#again");
  await page.click("#go");
  await page.waitForSelector(".compare");
});

test("a phone: 360 pixels, a sample, nothing sticks out", async (t) => {
  const address = await serve(t);
  const page = await open(t, address, { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });
  await fits(page);
  await page.tap("#samples button");
  await page.waitForSelector("#chosen img");
  await fits(page);
  await page.tap("#go");
  await page.waitForSelector(".compare");
  await fits(page);
  // Two fingers that part make it larger, around the place between them.
  const { x, y, width, height } = await page.locator(".view").boundingBox();
  const fingers = await page.context().newCDPSession(page);
  const touch = (type, apart) => fingers.send("Input.dispatchTouchEvent", {
    type, touchPoints: apart === null ? [] : [-apart, apart].map((by, id) => ({ id, x: x + width / 2 + by, y: y + height / 2 })),
  });
  const zoom = () => page.$eval(".zoom", (output) => parseInt(output.textContent));
  const before = await zoom();
  await touch("touchStart", 30);
  for (const apart of [40, 60, 90]) await touch("touchMove", apart);
  await touch("touchEnd", null);
  assert.ok((await zoom()) > 1.8 * before, `${before} to ${await zoom()}`);
  await accessible(page, "result on a phone");
  await page.goto(`${address}api`);
  await page.waitForSelector("article");
  await fits(page);
  await accessible(page, "API on a phone");
  assert.deepEqual(page.wrong, []);
});

test("the keyboard alone is enough", async (t) => {
  const page = await open(t, await serve(t), { viewport: { width: 820, height: 1180 } });
  const at = () => page.evaluate(() => document.activeElement.id || document.activeElement.className || document.activeElement.title);
  const tab = async (place) => {
    for (let presses = 0; presses < 60 && (await at()) !== place; presses++) await page.keyboard.press("Tab");
    assert.equal(await at(), place);
  };
  await tab("file");
  await tab("A cat, 112 × 75");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#chosen img");
  await tab("go");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".compare");
  assert.equal(await at(), "desk", "the result is where one is");
  await tab("view");
  await page.keyboard.press("+");
  await tab("split");
  await page.keyboard.press("End");
  assert.equal(await page.inputValue(".split"), "100");
  await page.focus("#open-models");
  await page.keyboard.press("Enter");
  await accessible(page, "models");
  await page.keyboard.press("Escape");
  assert.equal(await at(), "open-models");
});

test("several pictures wait in line, results are a gallery, a reload keeps them", async (t) => {
  const page = await open(t, await serve(t));
  await set(page, { samples: "2", steps: "4" });
  await page.setInputFiles("#file", [CAT, example("coffee-small.png"), example("portrait-small.png")]);
  assert.equal(await page.textContent("#go"), "Restore 3 pictures");
  await page.click("#go");
  assert.equal(await page.getAttribute("#jobs li:last-child .job", "aria-current"), "true", "the first is shown");
  await page.waitForFunction(() => [...document.querySelectorAll("#jobs .state")].filter((state) => state.textContent === "done").length === 3);
  assert.match(await page.textContent(".facts"), /seed 231/);
  await page.click(".gallery button:nth-child(2)");
  assert.match(await page.textContent(".facts"), /seed 232/);
  await page.reload();
  await page.waitForFunction(() => document.querySelectorAll("#jobs li").length === 3);
  await page.click("#jobs li:first-child .job");
  await page.waitForSelector(".compare");
  await page.click("#jobs li:first-child .remove");
  await page.waitForFunction(() => document.querySelectorAll("#jobs li").length === 2);
  assert.deepEqual(page.wrong, []);
});

test("at first sight nothing is half hidden, and fingers find what they touch", async (t) => {
  const page = await open(t, await serve(t));
  const box = (selector) => page.locator(selector).first().boundingBox();
  const [summary, go] = [await box("#advanced summary"), await box(".go")];
  assert.ok(summary.y + summary.height <= go.y, `${summary.y + summary.height} is below ${go.y}`);
  await page.setViewportSize({ width: 360, height: 740 });
  await page.locator("#advanced").evaluate((details) => (details.open = true));
  for (const [selector, least] of [["#groups input[type=checkbox]", 24], ["#basic input[type=range]", 36], ["#option-seed", 44]]) {
    const { height } = await box(selector);
    assert.ok(height >= least, `${selector} is ${height} px high`);
  }
});

test("regions are kept by a mask that is drawn or brought; results are compared; harm is told", async (t) => {
  const page = await open(t, await serve(t));
  await set(page, { steps: "2", samples: "2" });
  assert.equal(await page.locator("#option-safe").isVisible(), true);
  await page.check("#option-stability");
  await page.setInputFiles("#file", CAT);
  await page.waitForSelector("#chosen img");
  await page.click("text=Draw it");
  await page.waitForSelector("#draw canvas");
  await accessible(page, "drawing", "draw");
  const { x, y, width, height } = await page.locator("#draw canvas").boundingBox();
  await page.fill("#brush", "40");
  await page.mouse.move(x + width * 0.05, y + height / 2);
  await page.mouse.down();
  await page.mouse.move(x + width * 0.4, y + height / 2, { steps: 4 });
  await page.mouse.up();
  await page.click("text=Use this mask");
  await page.waitForSelector(".mask a:not([hidden])");
  const [saved] = await Promise.all([page.waitForEvent("download"), page.click(".mask a")]);
  const mask = join(folder(t), "mask.png");
  copyFileSync(await saved.path(), mask);
  await page.click("#go");
  await page.waitForSelector(".compare");
  assert.match(await page.textContent("#harm"), /contradicts the photograph/);
  assert.match(await page.textContent("#result"), /differ by \d+\.\d+ of 255 levels/);
  await page.click(".against >> text=Stability");
  assert.deepEqual(await page.$$eval(".stack img", (images) => images.map((image) => image.hidden)), [true, true, false, false]);
  await page.waitForFunction(() => document.querySelectorAll(".stack img")[2].naturalWidth === 448);
  await look(page, "stability");
  // The drawn mask is a file that the command line takes, for the same result.
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("a.main")]);
  const place = join(folder(t), "out.png");
  diffbir("restore", CAT, "-o", place, "--device", "cpu", "--steps", "2", "--mask", mask);
  assert.ok(readFileSync(await download.path()).equals(readFileSync(place)));
  await page.click("text=Use these settings");
  assert.equal(await page.textContent(".mask .fine"), "mask.png");

  // One result with a mask that is brought, as curl sends it, too.
  await page.fill("#option-samples", "");
  assert.equal(await page.locator("#option-stability").isVisible(), false, "one result differs from none");
  await page.setInputFiles("#option-mask", mask);
  await page.check("#option-safe");
  await page.click("#go");
  await page.waitForFunction(() => document.querySelectorAll("#jobs li").length === 2 && document.querySelector("#jobs .state").textContent === "done");
  assert.equal(await page.locator(".against button").count(), 2);
  await page.click("text=Copy as curl");
  await page.waitForFunction(() => document.getElementById("toast").textContent.includes("copied"));
  const curled = folder(t);
  copyFileSync(CAT, join(curled, "chelsea-small.png"));
  copyFileSync(mask, join(curled, "mask.png"));
  const ran = spawnSync("sh", ["-c", await page.evaluate(() => navigator.clipboard.readText())], { cwd: curled, encoding: "utf8" });
  assert.equal(ran.status, 0, ran.stderr);
  const [one] = await Promise.all([page.waitForEvent("download"), page.click("a.main")]);
  assert.ok(readFileSync(await one.path()).equals(readFileSync(join(curled, "chelsea-small_restored.png"))));
  // It is for this picture alone, and for one.
  await page.click("text=New picture");
  await page.setInputFiles("#file", example("coffee-small.png"));
  await page.waitForFunction(() => document.querySelector(".mask .fine").textContent === "");
  await page.setInputFiles("#option-mask", mask);
  await page.click("text=Choose another");
  await page.setInputFiles("#file", [CAT, CAT]);
  await page.setInputFiles("#option-mask", mask);
  await page.click("#go");
  assert.match(await page.textContent("#toast"), /mask is for one picture/);
  assert.equal(await page.locator("#jobs li").count(), 2);
  assert.deepEqual(page.wrong, []);
});

test("pictures are dropped and pasted", async (t) => {
  const page = await open(t, await serve(t));
  const bytes = readFileSync(CAT).toString("base64");
  const bring = (kind) => page.evaluate(async ([kind, bytes]) => {
    const blob = await (await fetch(`data:image/png;base64,${bytes}`).catch(() => null))?.blob()
      ?? new Blob([Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0))]);
    const data = new DataTransfer();
    data.items.add(new File([blob], `${kind}.png`, { type: "image/png" }));
    const event = kind === "drop" ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
      : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
    document.body.dispatchEvent(event);
  }, [kind, bytes]);
  for (const kind of ["drop", "paste"]) {
    await bring(kind);
    await page.waitForFunction((name) => document.getElementById("chosen").textContent.includes(name), `${kind}.png, 112`);
  }
});

test("the article's example is one click; a job can be had as a command", async (t) => {
  const page = await open(t, await serve(t));
  await page.click("text=Article's example");
  assert.equal(await page.inputValue("#option-prompt"), "a city with tall buildings, forest trees, snowy mountain background");
  assert.deepEqual([await page.inputValue("#option-steps"), await page.inputValue("#option-sampler")], ["50", "spaced"]);
  assert.match(await page.textContent("#hint"), /v1 are not here/);
  await page.waitForFunction(() => /city.png, 512 × 384, will be 512 × 384/.test(document.getElementById("chosen").textContent));
  await page.click("#go");
  await page.waitForSelector(".compare");
  assert.match(await page.textContent(".facts"), /512 × 384.*seed 231/);
  assert.doesNotMatch(await page.textContent("#result"), /warning/);
  assert.match(await page.textContent("#option-prompt-help"), /nano reads no text/);
  await page.click("text=v2.1 page");
  await page.locator("#advanced").evaluate((details) => (details.open = true));
  await page.check("#option-cleaner_tiled");
  assert.equal(await page.inputValue("#option-cleaner_tile_size"), "256", "as that page has it");
  await page.click("text=Defaults");
  await page.fill("#option-seed", "-1");
  await restore(page);
  const seed = (await page.textContent(".facts")).match(/seed (\d+)/)[1];
  const copied = async (button) => {
    await page.click(`text=${button}`);
    await page.waitForFunction(() => document.getElementById("toast").textContent.includes("copied"));
    return page.evaluate(() => navigator.clipboard.readText());
  };
  const command = await copied("Copy as command line");
  assert.equal(command, `diffbir restore chelsea-small.png --format=png --seed=${seed}`);
  const place = folder(t);
  copyFileSync(CAT, join(place, "chelsea-small.png"));
  const ran = spawnSync("sh", ["-c", await copied("Copy as curl")], { cwd: place, encoding: "utf8" });
  assert.equal(ran.status, 0, ran.stderr);
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("a.main")]);
  assert.ok(readFileSync(await download.path()).equals(readFileSync(join(place, "chelsea-small_restored.png"))));
});

test("several results of a strange name, behind a token, can be had as a command", async (t) => {
  const token = "0123456789abcdef";
  const page = await open(t, await serve(t, "--token", token), { path: `?token=${token}` });
  const place = folder(t);
  const name = "-a; b,c'$d.png";
  copyFileSync(CAT, join(place, name));
  // Sent without the page, which leaves out what the model does not read, and taken up by it.
  await page.evaluate(async ([name, bytes]) => {
    const form = new FormData();
    const fields = { steps: "2", samples: "2", prompt: "@/etc/hostname" };
    for (const [field, value] of Object.entries(fields)) form.append(field, value);
    form.append("image", new File([Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0))], name));
    const { id } = await (await fetch("/v1/restorations", { method: "POST", body: form })).json();
    sessionStorage.setItem("diffbir-jobs", JSON.stringify([id]));
  }, [name, readFileSync(CAT).toString("base64")]);
  await page.reload();
  await page.waitForFunction(() => document.querySelector("#jobs .state")?.textContent === "done");
  await page.click("#jobs .job");
  await page.waitForSelector(".compare");
  await page.click("text=Copy as curl");
  await page.waitForFunction(() => document.getElementById("toast").textContent.includes("copied"));
  const command = await page.evaluate(() => navigator.clipboard.readText());
  const env = { ...process.env, DIFFBIR_TOKEN: token };
  const ran = spawnSync("sh", ["-c", command], { cwd: place, encoding: "utf8", env });
  assert.equal(ran.status, 0, `${command}\n${ran.stderr}`);
  for (const button of ["1", "2"]) {
    await page.click(`.gallery button:nth-child(${button})`);
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("a.main")]);
    const kept = readdirSync(place).find((file) => file.endsWith(`_restored_${button - 1}.png`));
    assert.ok(readFileSync(await download.path()).equals(readFileSync(join(place, kept))), kept);
  }
  assert.deepEqual(page.wrong, []);
});

test("a model is got with its licences, progress and end", async (t) => {
  const address = await serve(t);
  const page = await open(t, address);
  // The server's answers are played, since the files are large and elsewhere.
  const list = await (await fetch(`${address}v1/models`)).json();
  const model = list.find(({ id }) => id === "v2.1");
  assert.ok(!model.present && model.files.every(({ licence }) => licence));
  const told = (name, data) => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
  const step = { file: model.files[0].name, checking: false, done: 45e6, total: 90e6, note: null };
  let release;
  const held = new Promise((resume) => (release = resume));
  await page.route("**/v1/models/v2.1/pull", (route) => route.fulfill({ status: 202 }));
  await page.route("**/v1/models/v2.1/pull/events", async (route) => {
    await held;
    await route.fulfill({ contentType: "text/event-stream", body: told("progress", step) + told("done", { model: "v2.1" }) });
  });
  await page.click("#open-models");
  assert.match(await page.textContent("#models"), new RegExp(`${model.files[0].name}.*licence`));
  await page.click("#models li:has(h4:text('v2.1')) > button");
  await page.waitForSelector("#models progress");
  await accessible(page, "download");
  Object.assign(model, { present: true, ready: model.tasks, files: model.files.map((file) => ({ ...file, present: true })) });
  await page.route("**/v1/models", (route) => route.fulfill({ json: list }));
  release();
  await page.waitForSelector("#models li:has(h4:text('v2.1')) .state:text-is('here')");
  await page.keyboard.press("Escape");
  assert.match(await page.textContent("#option-model"), /auto \(now v2.1\)/);
  assert.deepEqual(page.wrong, []);
});

/** Weights of Real-ESRGAN's animevideov3, all zeros: pixels are repeated. */
function weights() {
  const shapes = { "body.0": [64, 3, 3, 3], "body.34": [48, 64, 3, 3] };
  for (let at = 1; at < 34; at++) shapes[`body.${at}`] = at % 2 ? [64] : [64, 64, 3, 3];
  const tensors = {};
  let end = 0;
  const put = (name, shape) => {
    const begin = end;
    end += 4 * shape.reduce((product, size) => product * size, 1);
    tensors[name] = { dtype: "F32", shape, data_offsets: [begin, end] };
  };
  for (const [name, shape] of Object.entries(shapes)) {
    put(`${name}.weight`, shape);
    if (shape.length > 1) put(`${name}.bias`, shape.slice(0, 1));
  }
  const head = Buffer.from(JSON.stringify(tensors));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(head.length));
  return Buffer.concat([length, head, Buffer.alloc(end)]);
}

test("an engine is got where the settings ask for it, refused if it is another, and restores; a task says what it lacks", async (t) => {
  const content = weights();
  let release;
  const held = new Promise((resume) => (release = resume));
  const mirror = createServer(async (request, response) => {
    if (request.url !== "/realesr-animevideov3.pth") return response.writeHead(404).end();
    response.writeHead(200, { "Content-Length": content.length });
    response.write(content.subarray(0, content.length / 2));
    await held;
    response.end(content.subarray(content.length / 2));
  });
  await new Promise((listens) => mirror.listen(0, "127.0.0.1", listens));
  t.after(() => mirror.close());
  const data = folder(t);
  const page = await open(t, await serveFrom(t, data, `http://127.0.0.1:${mirror.address().port}`));
  const steps = page.locator(".field[data-name=steps]");
  await page.locator("#advanced").evaluate((details) => (details.open = true));
  assert.ok(await steps.isVisible());
  await page.selectOption("#option-model", "realesr-animevideov3");
  assert.match(await page.textContent("#lacks"), /realesr-animevideov3 is not here yet.*licence BSD-3-Clause/);
  assert.equal(await steps.isVisible(), false, "an engine has no stage 2 that would heed it");
  await page.locator("#advanced").evaluate((details) => (details.open = false));
  await look(page, "lacks");
  await page.focus("#lacks button");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector("#lacks progress")?.value > 0.4);
  assert.match(await page.textContent("#lacks"), /realesr-animevideov3.pth: 1.2 MB of 2.5 MB/);
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Stop", "focus stays where it was");
  await look(page, "getting");
  // It goes on where the page is loaded anew, and the dialog shows it, too.
  await page.reload();
  await page.waitForFunction(() => document.body.dataset.ready === "true");
  await page.click("#open-models");
  await page.waitForFunction(() => document.querySelector("#models progress")?.value > 0.4);
  await page.keyboard.press("Escape");
  await page.selectOption("#option-model", "realesr-animevideov3");
  await page.waitForSelector("#lacks progress");
  release();
  // What came is not what its authors published. Who puts it there by hand is taken at their word.
  await page.waitForSelector("#lacks .wrong");
  assert.match(await page.textContent("#lacks .wrong"), /is not the file it should be/);
  await accessible(page, "a file of other content", "refused");
  writeFileSync(join(data, "models", "realesr-animevideov3.pth"), content);
  await page.reload();
  await page.waitForFunction(() => document.body.dataset.ready === "true");
  await page.selectOption("#option-model", "realesr-animevideov3");
  await page.waitForFunction(() => document.getElementById("lacks").childElementCount === 0);
  assert.match(await page.textContent("#option-model optgroup option:checked"), /^realesr-animevideov3: /);
  await restore(page);
  assert.match(await page.textContent(".facts"), /^448 × 300, \d+ kB, [\d.]+ s$/, "nothing follows from a seed");
  assert.equal(await page.locator(".against button").count(), 1, "there is no stage 1 beside the result");
  await page.click("text=Copy as command line");
  await page.waitForFunction(() => document.getElementById("toast").textContent.includes("copied"));
  const command = await page.evaluate(() => navigator.clipboard.readText());
  assert.equal(command, "diffbir restore chelsea-small.png --format=png --model=realesr-animevideov3");

  // Faces in photographs need what finds them; nobody has it here.
  await page.selectOption("#option-task", "face-background");
  assert.match(await page.textContent("#lacks"), /face-background needs what finds faces/);
  await page.click("#lacks button");
  await page.waitForSelector("#lacks .wrong");
  assert.match(await page.textContent("#lacks .wrong"), /detection_Resnet50_Final.pth.*404/);
  await accessible(page, "a task that lacks something", "faces");
  await page.click("#open-models");
  await look(page, "models");
  await page.keyboard.press("Escape");
  // What a model is not for is told, and mended by a press.
  await page.selectOption("#option-model", "gfpgan-v1.4");
  assert.match(await page.textContent("#lacks"), /gfpgan-v1.4 is for the task face alone/);
  await page.click("text=Choose the task face");
  assert.equal(await page.inputValue("#option-task"), "face");
  assert.match(await page.textContent("#lacks"), /gfpgan-v1.4 is not here yet/);
  assert.deepEqual(page.wrong, []);
});
