// The models: which are here, and getting their files.
import { find, make, size } from "./element.js";
import { ask, follow } from "./server.js";

export class Models {
  constructor(list, changed) {
    this.list = list;
    this.changed = changed;
    this.running = null;
    this.dialog = find("models");
    find("open-models").addEventListener("click", () => this.open());
  }

  open() {
    this.draw();
    this.dialog.showModal();
  }

  draw() {
    const close = make("button", { type: "button", class: "quiet", onclick: () => this.dialog.close() }, "Close");
    this.dialog.replaceChildren(
      make("header", {}, make("h2", { id: "models-title" }, "Models"), close),
      make("p", { class: "fine" }, "Downloads come from the addresses that the authors and mirrors give. Nothing else here uses the network."),
      make("ul", {}, ...this.list.map((model) => this.item(model))));
  }

  item(model) {
    const state = model.present ? "here" : "not here";
    const parts = [make("h3", {}, model.id, make("span", { class: "state" }, state)), make("p", {}, model.about)];
    const missing = model.files.filter((file) => !file.present);
    if (model.files.length) {
      const files = model.files.map((file) =>
        make("li", {}, `${file.name}, ${file.size}, licence ${file.licence}${file.present ? ", here" : ""}`));
      parts.push(make("details", { open: missing.length > 0 },
        make("summary", {}, `${model.files.length} files and their licences`), make("ul", {}, ...files)));
    }
    if (this.running === model.id) {
      this.bar = make("progress", { "aria-label": `Download of ${model.id}` });
      this.said = make("p", { class: "fine", role: "status" }, "Asking");
      parts.push(this.bar, this.said, make("button", { type: "button", onclick: () => this.stop(model) }, "Stop"));
    } else if (missing.length) {
      const get = make("button", { type: "button", onclick: () => this.pull(model), disabled: this.running !== null },
        `Download what is missing (${missing.map((file) => file.size).join(", ")})`);
      parts.push(get);
    }
    if (this.failed?.model === model.id) parts.push(make("p", { class: "wrong", role: "alert" }, this.failed.reason));
    return make("li", {}, ...parts);
  }

  async pull(model) {
    this.failed = null;
    try {
      await ask(`/v1/models/${model.id}/pull`, { method: "POST" });
    } catch (error) {
      this.failed = { model: model.id, reason: error.message };
      return this.draw();
    }
    this.running = model.id;
    this.draw();
    follow(`/v1/models/${model.id}/pull/events`, ["progress", "note", "done", "error"], (name, data) => this.hear(model, name, data));
  }

  async hear(model, name, data) {
    if (name === "progress") {
      if (data.total) this.bar.value = data.done / data.total;
      const of = data.total ? ` of ${size(data.total)}` : "";
      this.said.textContent = `${data.file}: ${data.checking ? "checking " : ""}${size(data.done)}${of}`;
    } else if (name === "note") {
      this.said.textContent = `${data.file}: ${data.note}`;
    } else {
      this.running = null;
      this.failed = name === "error" ? { model: model.id, reason: data.error.detail } : null;
      this.list = await ask("/v1/models").catch(() => this.list);
      this.changed(this.list);
      this.draw();
    }
  }

  stop(model) {
    ask(`/v1/models/${model.id}/pull`, { method: "DELETE" }).catch(() => {});
  }
}
