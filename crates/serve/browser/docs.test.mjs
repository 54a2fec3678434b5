// The examples of docs/serve.md, run as they stand there but for the port.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { copyFileSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { test } from "node:test";
import { diffbir, example, folder, serve } from "./harness.mjs";

const text = readFileSync(resolve(import.meta.dirname, "../../../docs/serve.md"), "utf8");
const python = join(import.meta.dirname, "venv/bin/python");
const ways = { sh: ["sh", "example.sh"], python: [python, "example.py"], js: [process.execPath, "example.mjs"] };

test("the examples of the documentation give what the command line gives", async (t) => {
  const address = (await serve(t)).slice(0, -1);
  const place = folder(t);
  const at = (name) => join(place, name);
  copyFileSync(example("chelsea-small.png"), at("photo.png"));
  diffbir("restore", at("photo.png"), "-o", at("expected.png"), "--device", "cpu", "--seed", "7");
  const examples = [...text.matchAll(/^```(\w+)\n(.*?)^```$/gms)];
  assert.deepEqual(examples.map(([, language]) => language), ["sh", "python", "js"]);
  for (const [, language, code] of examples) {
    const [program, file] = ways[language];
    writeFileSync(at(file), code.replaceAll("http://127.0.0.1:7860", address));
    const ran = spawnSync(program, [file], { cwd: place, encoding: "utf8" });
    assert.equal(ran.status, 0, `${language}: ${ran.stderr}`);
    assert.ok(readFileSync(at("restored.png")).equals(readFileSync(at("expected.png"))), language);
    rmSync(at("restored.png"));
  }
});
