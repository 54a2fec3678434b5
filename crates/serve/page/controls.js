// The settings: made from what the server says of them.
import { find, make, prose, refill, toast } from "./element.js";
import { Mask } from "./mask.js";

/** Settings that people look for first; the rest is under "Advanced". */
const FIRST = "Basic";

/** Numbers that one types: any is as good as another, or there are few. */
const PLAIN = ["seed", "samples"];

/** What choices are called that are left open. */
const UNSET = { format: "as the original", stage1: "the model's own", face_engine: "the model", background_engine: "the model" };

/** The task that needs what finds faces; settings beside the model that name engines. */
const FACES = "face-background";
const ENGINES = ["stage1", "face_engine", "background_engine"];

export class Controls {
  /** `models` are those of the server; `begin` is called with the name of the sample that a preset begins with, `picture`
   * gives the picture that is to be restored. */
  constructor({ options, presets }, models, begin, picture) {
    this.options = options;
    this.picture = picture;
    this.models = models;
    this.begin = begin;
    this.fields = new Map();
    const groups = new Map();
    for (const option of options) {
      const place = option.group === FIRST ? find("basic") : group(groups, option.group);
      place.append(this.field(option));
    }
    find("groups").append(...groups.values());
    this.lacking = make("div", { class: "lacks", id: "lacks" });
    this.fields.get("model").input.closest(".field").after(this.lacking);
    const buttons = presets.map((preset) =>
      make("button", { type: "button", class: "quiet", title: preset.help, onclick: () => this.start(preset) }, preset.name));
    const reset = make("button", { type: "button", class: "quiet", onclick: () => this.set({}) }, "Defaults");
    find("presets").append(...buttons, reset);
    find("controls").addEventListener("input", () => this.adapt());
    this.set({});
  }

  field(option) {
    const id = `option-${option.name}`;
    const help = make("small", { id: `${id}-help` }, ...prose(sentence(option.help)));
    const described = { id, name: option.name, "aria-describedby": help.id };
    const label = make("label", { for: id }, option.label);
    let input, slider = null;
    if (option.kind === "picture") {
      this.mask = new Mask(described, this.picture);
      this.fields.set(option.name, { input: this.mask.input, slider });
      return make("div", { class: `field ${option.kind}`, "data-name": option.name }, label, this.mask.element, help);
    } else if (option.kind === "switch") {
      input = make("input", { ...described, type: "checkbox" });
    } else if (option.kind === "choice") {
      input = make("select", described, ...this.choices(option));
    } else if (option.kind === "text") {
      input = make("textarea", { ...described, rows: 1 });
    } else {
      const [min, max, step] = option.range;
      input = make("input", { ...described, type: "number", step: "any", inputmode: "decimal" });
      if (!PLAIN.includes(option.name)) {
        slider = make("input", { type: "range", min, max, step, tabindex: -1, "aria-hidden": "true" });
        slider.addEventListener("input", () => {
          input.value = slider.value;
        });
        input.addEventListener("input", () => this.slide(option));
      }
    }
    this.fields.set(option.name, { input, slider });
    const row = make("div", { class: `field ${option.kind}`, "data-name": option.name }, label, input, slider, help);
    return row;
  }

  choices(option) {
    const open = option.default && option.name !== "format" ? null : UNSET[option.name] ?? "what suits the model";
    const first = open ? [make("option", { value: "" }, open)] : [];
    const words = option.choices.map(({ value, help }) =>
      make("option", { value, title: help || false, selected: !open && value === option.default }, help ? `${value}: ${lower(help)}` : value));
    if (option.name !== "model") return first.concat(words);
    const engines = words.filter(({ value }) => this.models.named(value)?.purpose === "engine");
    return [...words.filter((word) => !engines.includes(word)), make("optgroup", { label: "Engines, without stage 2" }, ...engines)];
  }

  value(name) {
    return this.fields.get(name).input.value;
  }

  /** The model that will restore. */
  model() {
    return this.models.named(this.value("model")) ?? this.best();
  }

  /** The model that the server takes where none is asked for. */
  best() {
    const able = ({ id, purpose, ready }) => purpose === "model" && id !== "nano" && ready.includes(this.value("task"));
    return this.models.list.find(able) ?? this.models.named("nano");
  }

  /** How much larger results are. */
  upscale() {
    const { input } = this.fields.get("upscale");
    return Number(input.value || input.placeholder);
  }

  slide(option) {
    const { input, slider } = this.fields.get(option.name);
    if (slider) slider.value = input.value || input.placeholder || option.range[0];
  }

  /** What each setting is where it is left out, and which settings do something. */
  adapt() {
    const model = this.model();
    for (const option of this.options) {
      const { input } = this.fields.get(option.name);
      const suits = model.defaults[option.name];
      if (option.kind === "number" || option.kind === "integer") {
        input.placeholder = suits ?? option.default ?? "";
        this.slide(option);
      }
      if (option.kind === "text") {
        input.placeholder = model.prompts ? suits ?? "" : "";
        const help = model.prompts ? prose(sentence(option.help)) : [`${model.id} reads no text, so this is left out.`];
        find(`${input.id}-help`)?.replaceChildren(...help);
      }
      input.closest(".field").hidden = !this.heeded(option);
    }
    for (const place of document.querySelectorAll("#groups fieldset")) {
      place.hidden = !place.querySelector(".field:not([hidden])");
    }
    for (const name of ["model", ...ENGINES]) {
      for (const choice of this.fields.get(name).input.options) {
        const known = this.models.named(choice.value);
        const about = known?.purpose === "engine" ? `: ${known.about}` : "";
        if (known) choice.textContent = `${known.id}${known.present ? "" : " (not here yet)"}${about}`;
        else if (choice.value === "auto") choice.textContent = `auto (now ${this.best().id})`;
      }
    }
    this.showLacks();
  }

  /** Whether a setting does something with the model and the other settings. */
  heeded({ stage2, needs }) {
    if (stage2 && this.model().purpose === "engine") return false;
    if (!needs) return true;
    const [, other, sign, value] = needs.match(/^(\w+)([=>]?)(.*)$/);
    const { input } = this.fields.get(other);
    const set = input.type === "checkbox" ? input.checked
      : sign === ">" ? Number(input.value || input.placeholder) > Number(value)
      : sign ? input.value === value : input.value !== "";
    return set && this.heeded(this.options.find(({ name }) => name === other));
  }

  /** What the settings ask for that is not here, each with a reason; or a task that the model is not for. */
  lacks() {
    const task = this.value("task");
    const model = this.model();
    const lacks = [];
    if (!model.tasks.includes(task) && this.value("model") === "auto") {
      const able = this.models.list.find((other) => other.purpose === "model" && other.tasks.includes(task));
      if (able) lacks.push({ model: able, why: `Nothing that is here does the task ${task}; ${able.id} does:` });
    } else if (!model.tasks.includes(task)) {
      lacks.push({ instead: model.tasks[0], why: `${model.id} is for the task ${model.tasks.join(" or ")} alone.` });
    } else if (!model.ready.includes(task)) {
      lacks.push({ model, why: `${model.id} is not here yet.` });
    }
    for (const other of this.models.list.filter((other) => task === FACES && other.purpose === "faces" && !other.present)) {
      lacks.push({ model: other, why: `${task} needs what finds faces, which is not here yet.` });
    }
    const engines = this.options.filter((option) => ENGINES.includes(option.name) && this.heeded(option));
    for (const engine of engines.map(({ name }) => this.models.named(this.value(name)))) {
      if (engine && !engine.present && !lacks.some(({ model }) => model === engine)) {
        lacks.push({ model: engine, why: `${engine.id} is not here yet.` });
      }
    }
    return lacks;
  }

  showLacks() {
    const lacks = this.lacks();
    const { running, failed, list } = this.models;
    const state = JSON.stringify([lacks, running?.id, failed, list]);
    // Only what has changed, so that what is being read or pressed stays.
    if (state === this.shown) return;
    this.shown = state;
    refill(this.lacking, ...lacks.map(({ model, instead, why }) => {
      const set = () => {
        this.fields.get("task").input.value = instead;
        this.adapt();
      };
      const parts = model ? this.models.parts(model) : [make("button", { type: "button", onclick: set }, `Choose the task ${instead}`)];
      return make("div", {}, make("p", { role: "status" }, why), ...parts);
    }));
  }

  /** Begins with a preset; a model that is not here is left to be pulled. */
  start(preset) {
    const wanted = this.models.named(preset.options.model);
    const options = { ...preset.options, ...preset.prepared };
    let hint = `${preset.help} ${preset.sample ? "Restore it." : "Choose a picture and restore it."}`;
    if (wanted && !wanted.present) {
      delete options.model;
      hint = `${preset.help} The files of ${wanted.id} are not here (see Models), so the best model that is here takes its place.`;
    }
    this.set(options);
    find("hint").textContent = hint;
    if (preset.sample) this.begin(preset.sample).catch((error) => toast(error.message));
  }

  /** Sets all settings, those that are left out to their defaults. */
  set(options) {
    for (const option of this.options) {
      const { input } = this.fields.get(option.name);
      const value = options[option.name];
      if (option.kind === "picture") this.mask.set(value);
      else if (option.kind === "switch") input.checked = value === true;
      else if (option.kind === "choice") input.value = value ?? (option.name === "format" ? "" : option.default ?? "");
      else input.value = value ?? "";
    }
    find("hint").textContent = "";
    this.adapt();
  }

  /** What differs from the defaults, by name. */
  values() {
    const values = {};
    for (const option of this.options) {
      const { input } = this.fields.get(option.name);
      if (!this.heeded(option)) continue;
      if (option.kind === "text" && !this.model().prompts) continue;
      if (option.kind === "picture") {
        if (this.mask.file) values[option.name] = this.mask.file;
      } else if (option.kind === "switch") {
        if (input.checked) values[option.name] = true;
      } else if (input.value !== "" && input.value !== option.default) {
        values[option.name] = input.value;
      }
    }
    return values;
  }
}

function group(groups, name) {
  if (!groups.has(name)) groups.set(name, make("fieldset", {}, make("legend", {}, name)));
  return groups.get(name);
}

function lower(text) {
  return text[0].toLowerCase() + text.slice(1);
}

function sentence(text) {
  return /[.!?)\]]$/.test(text) ? text : `${text}.`;
}
