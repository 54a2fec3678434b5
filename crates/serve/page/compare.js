// Before and after: layers over each other that zoom and pan in step, with a line between them.
import { make } from "./element.js";

const LARGEST = 16;

export class Compare {
  /** `layers`: name, address; the last is what the others are compared with. All are shown at `width` by `height`. */
  constructor(layers, { width, height }) {
    this.size = { width, height };
    this.images = layers.map(({ name, src }) => make("img", { src, alt: name, draggable: "false" }));
    this.stack = make("div", { class: "stack" }, ...this.images);
    this.line = make("div", { class: "line" });
    this.slider = make("input", {
      type: "range", min: 0, max: 100, step: 1, value: 50, class: "split",
      "aria-label": "Line between before and after", oninput: () => this.split(),
    });
    this.left = make("span", { class: "tag left" });
    this.view = make("div", {
      class: "view", tabindex: 0, role: "group", "aria-label": "Before and after. Plus and minus zoom, arrows move, 0 fits, 1 shows pixels as they are.",
      onwheel: (event) => this.wheel(event),
      onkeydown: (event) => this.key(event),
      onpointerdown: (event) => this.down(event),
      onpointermove: (event) => this.move(event),
      onpointerup: (event) => this.up(event),
      onpointercancel: (event) => this.up(event),
      ondblclick: (event) => this.zoomTo(this.zoom > this.fitZoom() * 1.01 ? this.fitZoom() : 1, this.spot(event)),
    }, this.stack, this.line, this.left, make("span", { class: "tag right" }, layers.at(-1).name));
    const against = layers.slice(0, -1).map(({ name }, index) =>
      make("button", { type: "button", "aria-pressed": index === 0 ? "true" : "false", onclick: () => this.against(index) }, name));
    this.buttons = against;
    this.percent = make("output", { class: "zoom", "aria-label": "Zoom" });
    const tool = (text, title, act) => make("button", { type: "button", title, "aria-label": title, onclick: act }, text);
    const tools = make("div", { class: "tools" },
      make("div", { class: "against", role: "group", "aria-label": "Compare with" }, ...against),
      make("div", { class: "zooms", role: "group", "aria-label": "Zoom" },
        tool("−", "Zoom out", () => this.zoomTo(this.zoom / 1.5)), this.percent,
        tool("+", "Zoom in", () => this.zoomTo(this.zoom * 1.5)),
        tool("Fit", "Fit", () => this.fit()), tool("1:1", "1:1, pixels as they are", () => this.zoomTo(1))));
    this.element = make("div", { class: "compare" }, this.view, this.slider, tools);
    this.pointers = new Map();
    new ResizeObserver(() => this.resize()).observe(this.view);
    this.against(0);
  }

  /** Shows another result in place of the one that is shown. */
  show({ name, src }) {
    const last = this.images.at(-1);
    last.src = src;
    last.alt = name;
  }

  against(index) {
    this.images.slice(0, -1).forEach((image, other) => (image.hidden = other !== index));
    this.buttons.forEach((button, other) => button.setAttribute("aria-pressed", String(other === index)));
    this.left.textContent = this.buttons[index].textContent;
  }

  // The stage-wide geometry: screen = offset + zoom · pixel.

  resize() {
    const kept = this.fitted ?? true;
    this.box = this.view.getBoundingClientRect();
    if (kept || this.zoom < this.fitZoom()) this.fit();
    else this.place();
  }

  fitZoom() {
    return Math.min(this.box.width / this.size.width, this.box.height / this.size.height);
  }

  fit() {
    this.zoom = this.fitZoom();
    this.x = this.y = 0;
    this.place();
  }

  /** Zooms so that what lies under `spot` stays there. */
  zoomTo(zoom, spot = { x: this.box.width / 2, y: this.box.height / 2 }) {
    const next = Math.min(LARGEST, Math.max(this.fitZoom(), zoom));
    const ratio = next / this.zoom;
    this.x = spot.x - (spot.x - this.x) * ratio;
    this.y = spot.y - (spot.y - this.y) * ratio;
    this.zoom = next;
    this.place();
  }

  /** Keeps the picture in the view, in its middle where it is smaller, and draws. */
  place() {
    const kept = (offset, side, box) => (side <= box ? (box - side) / 2 : Math.min(0, Math.max(box - side, offset)));
    const [width, height] = [this.size.width * this.zoom, this.size.height * this.zoom];
    this.x = kept(this.x, width, this.box.width);
    this.y = kept(this.y, height, this.box.height);
    this.fitted = this.zoom <= this.fitZoom() * 1.001;
    for (const image of this.images) {
      Object.assign(image.style, { width: `${width}px`, height: `${height}px`, transform: `translate(${this.x}px, ${this.y}px)` });
      image.classList.toggle("pixels", this.zoom > 3);
    }
    this.percent.textContent = `${Math.round(this.zoom * 100)} %`;
    this.view.classList.toggle("movable", !this.fitted);
    this.split();
  }

  /** Draws the line: before on its left, after on its right. */
  split() {
    const share = this.slider.value / 100;
    const [left, right] = [Math.max(0, this.x), Math.min(this.box.width, this.x + this.size.width * this.zoom)];
    const at = left + (right - left) * share;
    this.line.style.transform = `translateX(${at}px)`;
    this.slider.setAttribute("aria-valuetext", `${this.slider.value} % before`);
    const after = this.images.at(-1);
    after.style.clipPath = `inset(0 0 0 ${Math.max(0, at - this.x)}px)`;
  }

  spot(event) {
    this.box = this.view.getBoundingClientRect();
    return { x: event.clientX - this.box.left, y: event.clientY - this.box.top };
  }

  wheel(event) {
    event.preventDefault();
    this.zoomTo(this.zoom * Math.exp(-event.deltaY / 400), this.spot(event));
  }

  key(event) {
    const step = 60;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "+" || event.key === "=") this.zoomTo(this.zoom * 1.25);
    else if (event.key === "-") this.zoomTo(this.zoom / 1.25);
    else if (event.key === "0") this.fit();
    else if (event.key === "1") this.zoomTo(1);
    else if (moves[event.key] && !this.fitted) {
      this.x += moves[event.key][0];
      this.y += moves[event.key][1];
      this.place();
    } else return;
    event.preventDefault();
  }

  down(event) {
    if (event.button > 0) return;
    this.view.setPointerCapture(event.pointerId);
    const spot = this.spot(event);
    this.pointers.set(event.pointerId, spot);
    const line = new DOMMatrix(getComputedStyle(this.line).transform).m41;
    // Near the line it is the line that moves, and where nothing else can.
    this.grabs = this.pointers.size === 1 && (Math.abs(spot.x - line) < 24 || this.fitted);
    if (this.grabs) this.drag(spot);
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const spot = this.spot(event);
    this.pointers.set(event.pointerId, spot);
    if (this.pointers.size === 2) {
      const [a, b] = [...this.pointers.values()];
      const middle = { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
      const span = Math.hypot(a.x - b.x, a.y - b.y);
      if (this.span) {
        this.x += middle.x - this.middle.x;
        this.y += middle.y - this.middle.y;
        this.zoomTo(this.zoom * span / this.span, middle);
      }
      [this.span, this.middle, this.grabs] = [span, middle, false];
    } else if (this.grabs) {
      this.drag(spot);
    } else {
      this.x += spot.x - before.x;
      this.y += spot.y - before.y;
      this.place();
    }
  }

  up(event) {
    this.pointers.delete(event.pointerId);
    this.span = null;
    this.grabs = false;
  }

  drag(spot) {
    const [left, right] = [Math.max(0, this.x), Math.min(this.box.width, this.x + this.size.width * this.zoom)];
    this.slider.value = ((spot.x - left) / (right - left)) * 100;
    this.split();
  }
}
