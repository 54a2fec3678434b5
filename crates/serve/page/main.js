// The page: pictures come in, settings are chosen, jobs are shown.
import { Compare } from "./compare.js";
import { Controls } from "./controls.js";
import { find, make, size, toast } from "./element.js";
import { Jobs } from "./jobs.js";
import { Models } from "./models.js";
import { formatOf, pick, sample } from "./pick.js";
import { ask } from "./server.js";

let described;
let controls;
let models;
let files = [];
let expectations = [];
const jobs = new Jobs(show);
const areas = ["pick", "chosen", "working", "failed", "result"];

function only(...shown) {
  for (const area of areas) find(area).hidden = !shown.includes(area);
}

/** Pictures were brought: they are looked at before anything is done. */
function take(brought) {
  files = brought;
  controls?.mask?.keepFor(files[0]);
  jobs.select(null);
}

function showChosen() {
  only(...(files.length ? ["chosen"] : ["pick"]));
  find("go").disabled = files.length === 0;
  find("go").textContent = files.length > 1 ? `Restore ${files.length} pictures` : "Restore";
  if (!files.length) return;
  expectations = [];
  const pictures = files.map((file) => {
    const image = make("img", { src: URL.createObjectURL(file), alt: "", onerror: () => image.remove() });
    image.addEventListener("load", () => expect());
    const expect = () => {
      const [width, height] = [image.naturalWidth, image.naturalHeight];
      const by = controls.upscale();
      if (width) caption.textContent = `${file.name}, ${width} × ${height}, will be ${Math.floor(width * by)} × ${Math.floor(height * by)}`;
    };
    expectations.push(expect);
    const caption = make("figcaption", {}, `${file.name}, ${size(file.size)}`);
    return make("figure", {}, image, caption);
  });
  const other = make("button", { type: "button", class: "quiet", onclick: () => take([]) }, files.length > 1 ? "Choose others" : "Choose another");
  find("chosen").replaceChildren(make("div", { class: files.length > 1 ? "many" : "one" }, ...pictures), other);
}

/** Shows a job, or what is to be restored next. */
function show(job) {
  if (!job) return showChosen();
  // The picture of a job that has ended can be restored again, with other settings.
  const again = ["done", "failed"].includes(job.phase) && Boolean(job.file) && !isOfPicture(job);
  find("go").disabled = files.length === 0 && !again;
  find("go").textContent = again ? "Restore again" : "Restore";
  if (job.phase === "done") return showResult(job);
  shown = null;
  if (job.phase === "failed") {
    only("failed");
    find("reason").textContent = reasonOf(job);
    find("again").hidden = !again;
    find("other").classList.toggle("main", !again);
    return;
  }
  only("working");
  const preview = find("preview");
  const src = job.preview ?? job.before;
  if (preview.getAttribute("src") !== src) preview.src = src;
  preview.classList.toggle("rough", Boolean(job.preview) && !job.preview.endsWith("=0"));
  if (find("stage").textContent !== job.said) find("stage").textContent = job.said;
  if (job.progress === null) find("progress").removeAttribute("value");
  else find("progress").value = job.progress;
  find("eta").textContent = job.eta || "\u00a0";
}

/** Why a job has no result. */
const reasonOf = (job) => job.reason ?? job.shown?.error?.detail ?? "";

/** Whether a job failed for what its picture is, which no settings change. */
function isOfPicture(job) {
  const reason = job.phase === "failed" ? reasonOf(job) : "";
  return [`${job.name}: `, "the picture has ", "the picture, "].some((start) => reason.startsWith(start));
}

let shown = null;

function showResult(job) {
  only("result");
  if (shown === job) return;
  shown = job;
  const { before, stage1, stability, results, notes, command } = job.shown;
  const view = (href) => `${href}${href.includes("?") ? "&" : "?"}view=true`;
  const first = results[0];
  const layers = [{ name: "Original", src: before }];
  // Without a stage 2 there is nothing between, and nothing that follows from a seed.
  const { model, stage1_only: onlyStage1 } = job.shown.options;
  const hasStage2 = !onlyStage1 && models.named(model)?.purpose !== "engine";
  if (stage1 && hasStage2) layers.push({ name: "Stage 1", src: view(stage1) });
  if (stability) layers.push({ name: "Stability", src: stability.href });
  layers.push({ name: "Restored", src: view(first.href) });
  const compare = new Compare(layers, first);
  const download = make("a", { class: "button main" });
  const facts = make("p", { class: "facts" });
  const harm = make("p", { class: "fine", id: "harm" });
  const differ = stability && make("p", { class: "fine" },
    `The results differ by ${(stability.mean * 255).toFixed(2)} of 255 levels on average. In the layer Stability black is where they agree, white where they deviate by 32 levels or more.`);
  const choose = (result) => {
    compare.show({ name: "Restored", src: view(result.href) });
    download.href = result.href;
    download.download = result.file;
    download.textContent = `Download ${result.file.split(".").pop().toUpperCase()}`;
    facts.textContent = `${result.width} × ${result.height}, ${size(result.bytes)}, ${hasStage2 ? `seed ${result.seed}, ` : ""}${(job.shown.ended - job.shown.started).toFixed(1)} s`;
    harm.textContent = ofHarm(result.harm);
    harm.hidden = !result.harm;
    gallery?.querySelectorAll("button").forEach((button, index) => button.setAttribute("aria-pressed", String(results[index] === result)));
  };
  const gallery = results.length > 1 ? make("div", { class: "gallery", role: "group", "aria-label": "Results" },
    ...results.map((result) => make("button", { type: "button", title: `Seed ${result.seed}`, onclick: () => choose(result) },
      make("img", { src: view(result.href), alt: `Result of seed ${result.seed}` })))) : null;
  const copy = (text, what) => navigator.clipboard.writeText(text).then(() => toast(`${what} copied.`), () => toast("The browser does not let the page copy."));
  const actions = make("div", { class: "actions" }, download,
    make("button", { type: "button", onclick: () => copy(command, "Command line") }, "Copy as command line"),
    make("button", { type: "button", onclick: () => copy(curl(job), "curl command") }, "Copy as curl"),
    make("button", { type: "button", onclick: () => controls.set({ ...job.shown.options, mask: job.mask }) }, "Use these settings"),
    make("button", { type: "button", class: "quiet", onclick: () => take([]) }, "New picture"));
  find("result").replaceChildren(compare.element, ...[gallery].filter(Boolean), facts, harm,
    ...[differ].filter(Boolean), ...notes.map((note) => make("p", { class: "fine" }, note)), actions);
  choose(first);
  find("desk").focus({ preventScroll: true });
}

/** Whether a result keeps to its photograph, in a sentence. */
function ofHarm(harm) {
  if (!harm?.harmed) return "No part of the result contradicts the photograph.";
  const parts = `In ${harm.harmed} of ${harm.parts} parts the result of stage 2 contradicts the photograph`;
  return harm.kept ? `${parts}; stage 1 was kept there.` : `${parts}. “Do no harm” keeps stage 1 there.`;
}

/** The request of a job for a shell, with all its results. */
function curl({ name, shown }) {
  const quoted = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;
  const call = ["curl", "-fsS", ...(described.token ? ['-H "Authorization: Bearer $DIFFBIR_TOKEN"'] : [])].join(" ");
  // A text that begins with @ or < would be taken for a file's name, and a name with ; or , for more than a name.
  const options = Object.entries(shown.options).map(([option, value]) => `--form-string ${quoted(`${option}=${value}`)}`);
  const file = (field, name) => ["-F", quoted(`${field}=@"${name.replaceAll(/["\\]/g, "\\$&")}"`)];
  const send = [call, ...file("image", name), ...(shown.mask ? file("mask", shown.mask) : []), ...options];
  const jobs = `${location.origin}/v1/restorations`;
  if (shown.results.length === 1 && shown.results[0].width * shown.results[0].height <= 4_194_304) {
    return [...send, quoted(`${jobs}?wait=600`), "-o", quoted(shown.results[0].file)].join(" ");
  }
  // What is not waited for in one request: its events end when it does.
  const job = `job=${quoted(location.origin)}$(${[...send, quoted(jobs)].join(" ")} | sed 's/.*"href":"\\([^"]*\\)","events".*/\\1/')`;
  const fetched = shown.results.map((result, sample) => `${call} "$job/result?sample=${sample}" -o ${quoted(result.file)}`);
  return [job, `${call} -N "$job/events" > /dev/null`, ...fetched].join(" && ");
}

async function restore(event) {
  event.preventDefault();
  const sent = files.length ? files : [jobs.selected.file];
  const values = controls.values();
  if (values.mask && sent.length > 1) return toast("A mask is for one picture: remove it, or choose one picture.");
  files = [];
  scrollTo({ top: 0 });
  for (const file of sent) {
    const options = { ...values };
    options.format ??= await formatOf(file);
    // Quality is for formats that lose something.
    if (!["jpeg", "webp"].includes(options.format)) delete options.quality;
    jobs.send(file, options);
  }
}

async function start() {
  find("controls").addEventListener("submit", restore);
  find("cancel").addEventListener("click", () => jobs.remove(jobs.selected));
  find("again").addEventListener("click", () => take([jobs.selected.file]));
  find("other").addEventListener("click", () => take([]));
  find("controls").addEventListener("input", () => expectations.forEach((expect) => expect()));
  pick(take);
  try {
    let list;
    [described, list] = await Promise.all([ask("/v1/controls"), ask("/v1/models")]);
    models = new Models(list, () => controls.adapt());
    controls = new Controls(described, models, (name) => sample(name).then((file) => take([file])), () => files[0] ?? jobs.selected?.file);
    document.body.dataset.ready = "true";
    showChosen();
    models.resume();
    await jobs.resume();
  } catch (error) {
    only("failed");
    find("again").hidden = find("other").hidden = true;
    find("reason").textContent = error.message;
  }
}

start();
