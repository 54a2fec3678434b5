// Elements of the page, made and found.

/** An element with attributes, listeners (`onclick`) and children. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A text as nodes, what stands between backticks as code. */
export function prose(text) {
  return text.split("`").map((part, index) => (index % 2 ? make("code", {}, part) : part));
}

/** Fills a place anew; focus stays with what is for the same thing. */
export function refill(place, ...nodes) {
  const held = place.contains(document.activeElement) ? document.activeElement.dataset.for : undefined;
  place.replaceChildren(...nodes);
  if (held !== undefined) place.querySelector(`[data-for="${held}"]`)?.focus();
}

/** The element of this id. */
export const find = (id) => document.getElementById(id);

let fading;

/** A few words that go away again. */
export function toast(text) {
  const place = find("toast");
  place.textContent = text;
  clearTimeout(fading);
  fading = setTimeout(() => (place.textContent = ""), 4000);
}

/** A number of seconds for people. */
export function duration(seconds) {
  if (seconds < 1) return "less than a second";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** A number of bytes for people. */
export function size(bytes) {
  if (bytes < 1e6) return `${Math.max(1, Math.round(bytes / 1e3))} kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}
