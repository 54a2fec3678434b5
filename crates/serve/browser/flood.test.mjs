// A thousand uploads that stop half way.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { test } from "node:test";
import { example, serve } from "./harness.mjs";

test("a thousand half-open uploads hold nobody up and end by themselves", async (t) => {
  const address = new URL(await serve(t));
  const head = [
    "POST /v1/restorations HTTP/1.1", `Host: ${address.host}`, "Content-Type: multipart/form-data; boundary=B",
    "Content-Length: 100000", "", '--B\r\nContent-Disposition: form-data; name="image"', "", "xxxx",
  ].join("\r\n");
  const sockets = await Promise.all(Array.from({ length: 1000 }, (_, index) => new Promise((opened, failed) => {
    const socket = connect(address.port, address.hostname, () => {
      // Some stop in the picture, some in the head.
      socket.write(index % 2 ? head : "POST /v1/restorations HTTP/1.1\r\nHo");
      opened(socket);
    });
    socket.on("error", failed);
    socket.resume();
  })));
  t.after(() => sockets.forEach((socket) => socket.destroy()));
  for (let times = 0; times < 20; times++) {
    const begun = performance.now();
    assert.equal((await fetch(new URL("/healthz", address))).status, 200);
    assert.ok(performance.now() - begun < 1000);
  }
  await Promise.all(sockets.map((socket) => socket.closed || new Promise((closed) => socket.once("close", closed))));
  const form = new FormData();
  form.append("image", new Blob([readFileSync(example("chelsea-small.png"))]), "a.png");
  form.append("stage1_only", "true");
  assert.equal((await fetch(new URL("/v1/restorations?wait=60", address), { method: "POST", body: form })).status, 200);
});
