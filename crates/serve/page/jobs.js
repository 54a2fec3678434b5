// The jobs of this session: sent, followed, kept in a list.
import { duration, find, make } from "./element.js";
import { ask, follow, submit } from "./server.js";

const KEPT = "diffbir-jobs";
const EVENTS = ["queued", "stage", "step", "preview", "note", "done", "error"];
const STAGES = { load: "Loading the model", "stage 1": "Removing the degradation", encode: "Encoding", sample: "Drawing detail", decode: "Decoding" };

export class Jobs {
  /** `show` is called whenever what is to be seen of the selected job has changed. */
  constructor(show) {
    this.show = show;
    this.list = [];
    this.selected = null;
  }

  /** Takes up what the session had before the page was loaded anew. */
  async resume() {
    for (const id of JSON.parse(sessionStorage.getItem(KEPT) ?? "[]")) {
      const shown = await ask(`/v1/restorations/${id}`).catch(() => null);
      if (shown) this.follow(this.add({ name: shown.name, before: shown.before, shown }));
    }
    this.draw();
  }

  add(job) {
    const added = { phase: "sending", said: "Sending", progress: null, eta: "", preview: null, ...job };
    this.list.unshift(added);
    return added;
  }

  /** Sends a file; the job is selected where nothing else is going on before it. */
  async send(file, options) {
    const job = this.add({ name: file.name, before: URL.createObjectURL(file), file, mask: options.mask });
    const goesOn = this.selected && !["done", "failed"].includes(this.selected.phase);
    this.select(goesOn ? this.selected : job);
    try {
      job.shown = await submit(file, options, (said) => this.tell(job, said));
      this.keep();
      this.follow(job);
    } catch (error) {
      this.fail(job, error.message);
    }
  }

  follow(job) {
    if (job.cancelled) return this.remove(job);
    job.phase = "working";
    job.stop = follow(job.shown.events, EVENTS, (name, data) => this.hear(job, name, data));
    this.changed(job);
  }

  async hear(job, name, data) {
    if (name === "queued") {
      this.tell(job, data.position === 0 ? "Next in line" : `Waiting: ${data.position} before it`);
    } else if (name === "stage") {
      job.progress = null;
      job.eta = "";
      this.tell(job, STAGES[data.stage] ?? data.stage);
    } else if (name === "step") {
      job.progress = data.done / data.total;
      const steps = data.stage === "sample" ? `Step ${data.done} of ${data.total}` : "";
      const left = data.eta_s > 0 ? `${duration(data.eta_s)} left` : "";
      job.eta = [steps, left].filter(Boolean).join(", ");
      this.changed(job);
    } else if (name === "preview") {
      job.preview = data.href;
      this.changed(job);
    } else if (name === "done") {
      job.shown = await ask(job.shown.href).catch(() => job.shown);
      job.phase = job.shown.state === "done" ? "done" : "failed";
      this.changed(job);
    } else if (name === "error") {
      this.fail(job, data.error.detail);
    } else if (name === "lost") {
      this.fail(job, "The server does not know this job any more.");
    }
  }

  tell(job, said) {
    job.said = said;
    this.changed(job);
  }

  fail(job, reason) {
    if (!this.list.includes(job)) return;
    job.phase = "failed";
    job.reason = reason;
    this.changed(job);
  }

  /** Stops and forgets a job. */
  remove(job) {
    job.cancelled = true;
    job.stop?.();
    if (job.shown) ask(job.shown.href, { method: "DELETE" }).catch(() => {});
    this.list = this.list.filter((other) => other !== job);
    this.keep();
    this.draw();
    if (this.selected === job) this.select(null);
  }

  select(job) {
    this.selected = job;
    this.draw();
    this.show(job);
  }

  changed(job) {
    this.draw();
    if (this.selected === job) this.show(job);
  }

  keep() {
    const ids = this.list.filter((job) => job.shown).map((job) => job.shown.id);
    sessionStorage.setItem(KEPT, JSON.stringify(ids.reverse()));
  }

  draw() {
    find("history").hidden = this.list.length === 0;
    const known = new Map([...find("jobs").children].map((item) => [item.job, item]));
    const items = this.list.map((job) => {
      const item = known.get(job) ?? this.item(job);
      item.querySelector("img").src = job.phase === "done" ? `${job.shown.results[0].href}&view=true` : viewable(job);
      item.querySelector(".state").textContent = state(job);
      item.querySelector("button").setAttribute("aria-current", String(job === this.selected));
      return item;
    });
    // Only what has changed, so that focus stays where it is.
    if (items.some((item, index) => find("jobs").children[index] !== item) || known.size !== items.length) {
      find("jobs").replaceChildren(...items);
    }
  }

  item(job) {
    const image = make("img", { alt: "", width: 96, height: 72, onerror: () => (image.style.visibility = "hidden"), onload: () => (image.style.visibility = "") });
    const open = make("button", { type: "button", class: "job", onclick: () => this.select(job) },
      make("span", { class: "thumb" }, image), make("span", { class: "name" }, job.name), make("span", { class: "state" }));
    const remove = make("button", { type: "button", class: "quiet remove", "aria-label": `Remove ${job.name}`, title: "Remove", onclick: () => this.remove(job) }, "×");
    const item = make("li", {}, open, remove);
    item.job = job;
    return item;
  }
}

function viewable(job) {
  return job.preview ?? job.before;
}

function state(job) {
  if (job.phase === "done") return "done";
  if (job.phase === "failed") return "no result";
  return job.said.startsWith("Waiting") ? "waiting" : "working";
}
