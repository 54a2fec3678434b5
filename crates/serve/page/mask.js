// The mask of regions: brought as a file, or drawn over the picture.
import { find, make, toast } from "./element.js";

/** The longer side of a mask that is drawn, pixels: the server takes one of any size. */
const DRAWN_PX = 1024;

export class Mask {
  /** `described` are the attributes of its input; `picture` gives the picture that it is for. */
  constructor(described, picture) {
    this.picture = picture;
    this.input = make("input", { ...described, type: "file", class: "sr", accept: "image/*,.tif,.tiff", onchange: () => this.bring() });
    this.name = make("span", { class: "fine" });
    this.shown = make("img", { alt: "", height: 40, hidden: true });
    this.save = make("a", { hidden: true }, "Save it");
    this.remove = make("button", { type: "button", class: "quiet", hidden: true, onclick: () => this.set(null) }, "Remove");
    this.element = make("div", { class: "mask" },
      this.input, make("label", { class: "button", for: described.id }, "Choose a file"),
      make("button", { type: "button", onclick: () => this.draw() }, "Draw it"),
      this.shown, this.name, this.save, this.remove);
    this.set(null);
  }

  bring() {
    if (this.input.files.length) this.set(this.input.files[0]);
    this.input.value = "";
  }

  /** Takes a file, or none; whatever it is for now, it is for no other picture. */
  set(file, drawn = false) {
    URL.revokeObjectURL(this.address);
    this.file = file ?? null;
    this.of = this.picture();
    this.address = file ? URL.createObjectURL(file) : "";
    this.name.textContent = file ? file.name : "";
    this.shown.hidden = this.remove.hidden = !file;
    this.save.hidden = !drawn;
    if (file) this.shown.src = this.save.href = this.address;
    this.save.download = drawn ? file.name : "";
  }

  /** Another picture is there: what was for the last one goes. */
  keepFor(picture) {
    if (!this.file || !picture) return;
    if (this.of && this.of !== picture) {
      this.set(null);
      toast("The mask was for another picture: removed.");
    }
    this.of = picture;
  }

  /** Opens the picture to be drawn on. */
  async draw() {
    const file = this.picture();
    if (!file) return toast("Choose a picture first.");
    const address = URL.createObjectURL(file);
    const image = make("img", { src: address, alt: "", draggable: "false" });
    try {
      await image.decode();
    } catch {
      URL.revokeObjectURL(address);
      return toast("The browser cannot show this picture: choose a file as its mask.");
    }
    const reduced = Math.min(1, DRAWN_PX / Math.max(image.naturalWidth, image.naturalHeight));
    const [width, height] = [image.naturalWidth, image.naturalHeight].map((side) => Math.max(1, Math.round(side * reduced)));
    const canvas = make("canvas", { width, height, "aria-label": "The picture: what is painted stays as stage 1 makes it" });
    const paper = make("div", { class: "paper" }, image, canvas);
    paper.style.setProperty("--ratio", width / height);
    const brush = make("input", { type: "range", id: "brush", min: 2, max: 40, value: 12 });
    const dialog = find("draw");
    const done = () => {
      dialog.close();
      URL.revokeObjectURL(address);
    };
    const button = (text, kind, act) => make("button", { type: "button", class: kind, onclick: act }, text);
    const clear = () => canvas.getContext("2d").clearRect(0, 0, width, height);
    const use = () => asMask(canvas).toBlob((blob) => {
      this.set(new File([blob], "mask.png", { type: "image/png" }), true);
      done();
    });
    dialog.replaceChildren(
      make("header", {}, make("h2", { id: "draw-title" }, "What is to stay"), button("Close", "quiet", done)),
      make("p", { class: "fine" }, "Paint over what stage 2 shall leave as stage 1 makes it."),
      paper,
      make("div", { class: "actions" }, make("label", { for: "brush" }, "Brush"), brush, button("Clear", "", clear), button("Use this mask", "main", use)));
    paint(canvas, () => brush.value / 100 * Math.min(width, height));
    dialog.showModal();
  }
}

/** Lines where a pointer goes. */
function paint(canvas, brushPx) {
  const context = canvas.getContext("2d");
  Object.assign(context, { strokeStyle: "#e5007d", lineCap: "round", lineJoin: "round" });
  const spot = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * canvas.width / box.width, (event.clientY - box.top) * canvas.height / box.height];
  };
  let last = null;
  const to = (event) => {
    const next = spot(event);
    context.lineWidth = brushPx();
    context.beginPath();
    context.moveTo(...last);
    context.lineTo(...next);
    context.stroke();
    last = next;
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button > 0) return;
    canvas.setPointerCapture(event.pointerId);
    last = spot(event);
    to(event);
  });
  canvas.addEventListener("pointermove", (event) => last && to(event));
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (last = null));
}

/** What was painted, white on black. */
function asMask(painted) {
  const mask = make("canvas", { width: painted.width, height: painted.height });
  const context = mask.getContext("2d");
  context.drawImage(painted, 0, 0);
  const fill = (colour, where) => {
    context.globalCompositeOperation = where;
    context.fillStyle = colour;
    context.fillRect(0, 0, mask.width, mask.height);
  };
  fill("#fff", "source-in");
  fill("#000", "destination-over");
  return mask;
}
