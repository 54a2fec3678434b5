// The settings: made from what the server says of them.
import { find, make, prose, toast } from "./element.js";

/** Settings that people look for first; the rest is under "Advanced". */
const FIRST = "Basic";

/** Numbers that one types: any is as good as another, or there are few. */
const PLAIN = ["seed", "samples"];

export class Controls {
  /** `begin` is called with the name of the sample that a preset begins with. */
  constructor({ options, presets }, models, begin) {
    this.options = options;
    this.models = models;
    this.begin = begin;
    this.fields = new Map();
    const groups = new Map();
    for (const option of options) {
      const place = option.group === FIRST ? find("basic") : group(groups, option.group);
      place.append(this.field(option));
    }
    find("groups").append(...groups.values());
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
    if (option.kind === "switch") {
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
    const open = option.name === "format" ? "as the original" : option.default ? null : "what suits the model";
    const first = open ? [make("option", { value: "" }, open)] : [];
    return first.concat(option.choices.map(({ value, help }) =>
      make("option", { value, title: help || false, selected: !open && value === option.default }, help ? `${value}: ${lower(help)}` : value)));
  }

  /** The model that will restore. */
  model() {
    const asked = this.fields.get("model").input.value;
    const task = this.fields.get("task").input.value;
    const able = (model) => model.present && model.tasks.includes(task);
    const best = () => this.models.find((model) => model.id !== "nano" && able(model)) ?? this.models.find((model) => model.id === "nano");
    return this.models.find((model) => model.id === asked) ?? best();
  }

  setModels(models) {
    this.models = models;
    this.adapt();
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
      if (option.needs) input.closest(".field").hidden = !this.fields.get(option.needs).input.checked;
    }
    for (const choice of this.fields.get("model").input.options) {
      const known = this.models.find((other) => other.id === choice.value);
      choice.textContent = known ? `${known.id}${known.present ? "" : " (not here yet)"}` : `${choice.value} (now ${this.best().id})`;
    }
  }

  best() {
    const input = this.fields.get("model").input;
    const asked = input.value;
    input.value = "auto";
    const best = this.model();
    input.value = asked;
    return best;
  }

  /** Begins with a preset; a model that is not here is left to be pulled. */
  start(preset) {
    const wanted = this.models.find((model) => model.id === preset.options.model);
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
      if (option.kind === "switch") input.checked = value === true;
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
      if (option.needs && !this.fields.get(option.needs).input.checked) continue;
      if (option.kind === "text" && !this.model().prompts) continue;
      if (option.kind === "switch") {
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
