// The description of the API, made readable.
import { find, make, prose } from "./element.js";

const METHODS = ["get", "post", "put", "delete"];
let schemas = {};

function named(reference) {
  return reference.split("/").pop();
}

/** The type of a schema in a word or two. */
function kind(schema) {
  if (!schema) return "";
  if (schema.$ref) return named(schema.$ref);
  if (schema.enum) return schema.enum.join(" | ");
  const several = schema.oneOf ?? schema.anyOf;
  if (several) return several.filter((one) => one.type !== "null").map(kind).join(" or ");
  if (schema.type === "array") return `list of ${kind(schema.items) || "values"}`;
  const types = [schema.type].flat().filter((type) => type && type !== "null");
  return schema.format === "binary" ? "file" : types.join(" or ");
}

function row(name, schema, needed) {
  const facts = [kind(schema), needed ? "required" : "", schema?.default !== undefined ? `default ${schema.default}` : ""];
  return make("tr", {}, make("th", { scope: "row" }, make("code", {}, name)), make("td", {}, facts.filter(Boolean).join(", ")), make("td", {}, ...prose(schema?.description ?? "")));
}

function table(of, caption, rows) {
  if (!rows.length) return null;
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `${of}: ${caption}` },
    make("table", {}, make("caption", {}, caption), make("tbody", {}, ...rows)));
}

function fields(schema) {
  const found = schema?.$ref ? schemas[named(schema.$ref)] : schema;
  if (found?.allOf) return found.allOf.flatMap(fields);
  return Object.entries(found?.properties ?? {}).map(([name, field]) => row(name, field, found.required?.includes(name)));
}

function operation(path, method, described) {
  const name = `${method.toUpperCase()} ${path}`;
  const parameters = (described.parameters ?? []).map(({ name, in: place, schema, description, required }) =>
    row(name, { ...schema, description: [`in the ${place}.`, description].filter(Boolean).join(" ") }, required));
  const bodies = Object.entries(described.requestBody?.content ?? {}).map(([type, { schema }]) => table(name, `Body, ${type}`, fields(schema)));
  const answers = Object.entries(described.responses ?? {}).map(([status, { description, content }]) => {
    const [type, body] = Object.entries(content ?? {})[0] ?? [];
    return make("tr", {}, make("th", { scope: "row" }, status), make("td", {}, [type, kind(body?.schema)].filter(Boolean).join(", ")), make("td", {}, description ?? ""));
  });
  return make("article", {},
    make("h3", {}, make("span", { class: "method" }, method.toUpperCase()), " ", make("code", {}, path)),
    make("p", {}, ...prose([described.summary, described.description].filter(Boolean).join(" "))),
    table(name, "Parameters", parameters), ...bodies, table(name, "Answers", answers));
}

async function start() {
  const description = await (await fetch("/openapi.json")).json();
  schemas = description.components.schemas;
  // In the order in which people ask.
  const groups = new Map(["Restorations", "Models", "Health"].map((tag) => [tag, []]));
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const method of METHODS.filter((method) => methods[method])) {
      const tag = methods[method].tags?.[0] ?? "Other";
      groups.set(tag, [...(groups.get(tag) ?? []), operation(path, method, methods[method])]);
    }
  }
  const parts = [...groups].flatMap(([tag, operations]) => [make("h2", {}, tag), ...operations]);
  const values = Object.keys(schemas).filter((name) => !["Form", "JsonForm"].includes(name));
  const types = values.map((name) => make("article", {}, make("h3", {}, name), make("p", {}, ...prose(schemas[name].description ?? "")),
    table(name, "Fields", fields(schemas[name])) ?? make("p", {}, kind(schemas[name]))));
  const intro = description.info.description.split("\n\n").map((text) => make("p", {}, ...prose(text)));
  find("api").replaceChildren(...intro, ...parts, make("h2", {}, "Types"), ...types);
}

start().catch(() => find("api").replaceChildren(make("p", { role: "alert" }, "The description cannot be loaded.")));
