// What there is to be got: models, engines, what finds faces; which are here, and getting their files.
import { find, make, refill, size } from "./element.js";
import { ask, follow } from "./server.js";

const KEPT = "diffbir-pull";
const PURPOSES = [
  ["model", "Models", "Clean a picture and give it detail, in two stages."],
  ["engine", "Engines", "Restore by themselves, without a stage 2: chosen as model, or for faces and background."],
  ["faces", "Faces in photographs", "For the task face-background, beside a model."],
];

export class Models {
  /** `changed` is called when what is to be seen of them has changed. */
  constructor(list, changed) {
    this.list = list;
    this.changed = changed;
    /** The download that goes on: of what, how far, and what is said of it. */
    this.running = null;
    this.failed = null;
    this.dialog = find("models");
    find("open-models").addEventListener("click", () => this.open());
  }

  /** The one of this name. */
  named(id) {
    return this.list.find((model) => model.id === id);
  }

  open() {
    this.draw();
    this.dialog.showModal();
  }

  draw() {
    const close = make("button", { type: "button", class: "quiet", onclick: () => this.dialog.close() }, "Close");
    const groups = PURPOSES.flatMap(([purpose, title, about]) => [
      make("h3", {}, title), make("p", { class: "fine" }, about),
      make("ul", {}, ...this.list.filter((model) => model.purpose === purpose).map((model) => this.item(model))),
    ]);
    refill(this.dialog,
      make("header", {}, make("h2", { id: "models-title" }, "What can be got"), close),
      make("p", { class: "fine" }, "Downloads come from the addresses that the authors and mirrors give. Nothing else here uses the network."),
      ...groups);
  }

  item(model) {
    const state = model.present ? "here" : "not here";
    return make("li", {}, make("h4", {}, model.id, make("span", { class: "state" }, state)), make("p", {}, model.about), ...this.parts(model));
  }

  /** The files of a model with their licences, and what gets those that are missing, or how far that is. */
  parts(model) {
    const missing = model.files.filter((file) => !file.present);
    const files = model.files.map((file) => `${file.name}, ${file.size}, licence ${file.licence}${file.present ? ", here" : ""}`);
    const parts = [];
    if (files.length === 1) parts.push(make("p", { class: "fine" }, files[0]));
    else if (files.length) {
      parts.push(make("details", { open: missing.length > 0 }, make("summary", {}, `${files.length} files and their licences`),
        make("ul", {}, ...files.map((file) => make("li", {}, file)))));
    }
    if (this.running?.id === model.id) {
      parts.push(make("progress", { "aria-label": `Download of ${model.id}`, "data-part": true, value: this.running.part }),
        make("p", { class: "fine", role: "status", "data-said": true }, this.running.said),
        make("button", { type: "button", "data-for": model.id, onclick: () => this.stop(model) }, "Stop"));
    } else if (missing.length) {
      const what = missing.length < files.length ? "Download what is missing" : "Download";
      parts.push(make("button", { type: "button", "data-for": model.id, onclick: () => this.pull(model), disabled: this.running !== null },
        `${what} (${missing.map((file) => file.size).join(", ")})`));
    }
    if (this.failed?.id === model.id) parts.push(make("p", { class: "wrong", role: "alert" }, this.failed.reason));
    return parts;
  }

  async pull(model) {
    this.failed = null;
    try {
      await ask(`/v1/models/${model.id}/pull`, { method: "POST" });
    } catch (error) {
      this.failed = { id: model.id, reason: error.message };
      return this.show();
    }
    this.follow(model.id);
  }

  /** Takes up the download that went on before the page was loaded anew. */
  async resume() {
    const id = sessionStorage.getItem(KEPT);
    if (!id) return;
    const looking = new AbortController();
    const answer = await fetch(`/v1/models/${id}/pull/events`, { signal: looking.signal }).catch(() => null);
    looking.abort();
    if (answer?.ok) this.follow(id);
    else sessionStorage.removeItem(KEPT);
  }

  follow(id) {
    sessionStorage.setItem(KEPT, id);
    this.running = { id, part: null, said: "Asking" };
    this.show();
    follow(`/v1/models/${id}/pull/events`, ["progress", "note", "done", "error"], (name, data) => this.hear(id, name, data));
  }

  async hear(id, name, data) {
    if (name === "progress") {
      const of = data.total ? ` of ${size(data.total)}` : "";
      this.tell(data.total ? data.done / data.total : null, `${data.file}: ${data.checking ? "checking " : ""}${size(data.done)}${of}`);
    } else if (name === "note") {
      this.tell(null, `${data.file}: ${data.note}`);
    } else {
      this.running = null;
      // A page that is being loaded anew hears that its connection is lost.
      if (name !== "lost") sessionStorage.removeItem(KEPT);
      const reasons = { error: data.error?.detail, lost: "The server does not know this download any more." };
      this.failed = name in reasons ? { id, reason: reasons[name] } : null;
      this.list = await ask("/v1/models").catch(() => this.list);
      this.show();
    }
  }

  /** Says how far the download is wherever it is shown. */
  tell(part, said) {
    Object.assign(this.running, { part, said });
    for (const bar of document.querySelectorAll("[data-part]")) {
      if (part === null) bar.removeAttribute("value");
      else bar.value = part;
    }
    for (const place of document.querySelectorAll("[data-said]")) place.textContent = said;
  }

  show() {
    if (this.dialog.open) this.draw();
    this.changed();
  }

  stop(model) {
    ask(`/v1/models/${model.id}/pull`, { method: "DELETE" }).catch(() => {});
  }
}
