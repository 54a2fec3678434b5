// Talks to the server.

/** An answer as JSON; an error carries what the server says. */
export async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    const error = new Error(problem.detail ?? `The server answered ${answer.status}.`);
    error.status = answer.status;
    error.retryAfter = Number(answer.headers.get("retry-after")) || null;
    throw error;
  }
  const text = await answer.text();
  return text ? JSON.parse(text) : null;
}

/** Sends a picture with options; a full queue is waited for. `told` hears how it goes. */
export async function submit(file, options, told) {
  const key = crypto.getRandomValues(new Uint32Array(4)).join("-");
  for (;;) {
    const form = new FormData();
    // A command that names both files must not mean one.
    const called = (other) => (other.name === file.name ? `mask-${other.name}` : other.name);
    for (const [name, value] of Object.entries(options)) form.append(name, ...(value instanceof File ? [value, called(value)] : [String(value)]));
    form.append("image", file, file.name);
    try {
      return await ask("/v1/restorations", { method: "POST", body: form, headers: { "Idempotency-Key": key } });
    } catch (error) {
      if (error.status !== 429) throw error;
      told(error.message);
      await new Promise((resume) => setTimeout(resume, 1000 * (error.retryAfter ?? 2)));
    }
  }
}

/** Follows server-sent events until `done` or `error`; the browser takes a broken connection up again. */
export function follow(path, names, hear) {
  const source = new EventSource(path);
  for (const name of names) {
    source.addEventListener(name, (event) => {
      // An `error` without data is one of the connection.
      if (event.data === undefined) {
        if (source.readyState === EventSource.CLOSED) hear("lost", {});
        return;
      }
      if (name === "done" || name === "error") source.close();
      hear(name, JSON.parse(event.data));
    });
  }
  return () => source.close();
}
