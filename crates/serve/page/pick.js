// Pictures come in: dropped, pasted, chosen, or one of ours.
import { find, make, toast } from "./element.js";

const SAMPLES = [
  ["cat.png", "A cat, 112 × 75"], ["coffee.png", "A cup of coffee, 150 × 100"], ["portrait.png", "A portrait, 128 × 128"],
  ["city.png", "A city, 512 × 384"],
];

/** Calls `take` with the files that somebody brings. */
export function pick(take) {
  const input = find("file");
  const bring = (files) => {
    const list = [...files];
    if (list.length) take(list);
  };
  input.addEventListener("change", () => {
    bring(input.files);
    input.value = "";
  });
  const holds = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  addEventListener("dragover", (event) => {
    if (!holds(event)) return;
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dragging");
  });
  addEventListener("drop", (event) => {
    document.body.classList.remove("dragging");
    if (!holds(event)) return;
    event.preventDefault();
    bring(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => bring(event.clipboardData?.files ?? []));
  for (const [name, title] of SAMPLES) {
    const image = make("img", { src: `/samples/${name}`, alt: title, width: 64, height: 48 });
    const use = () => sample(name).then((file) => take([file]), (error) => toast(error.message));
    find("samples").append(make("button", { type: "button", title, onclick: use }, image));
  }
}

/** One of our pictures. */
export async function sample(name) {
  const answer = await fetch(`/samples/${name}`).catch(() => null);
  if (!answer?.ok) throw new Error("The sample cannot be loaded.");
  return new File([await answer.blob()], name, { type: "image/png" });
}

/** The format that a file is in by its first bytes, as the server calls it; PNG where it writes no such files. */
export async function formatOf(file) {
  const bytes = new Uint8Array(await file.slice(0, 12).arrayBuffer());
  const starts = (...values) => values.every((value, index) => bytes[index] === value);
  if (starts(0xff, 0xd8)) return "jpeg";
  if (starts(0x49, 0x49) || starts(0x4d, 0x4d)) return "tiff";
  return starts(0x52, 0x49, 0x46, 0x46) && bytes[8] === 0x57 ? "webp" : "png";
}
