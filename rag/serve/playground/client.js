// Talks to the server the page came from: JSON and server-sent events. The key goes into a header, never into an address.

const STORED = "graft-key";

// What went wrong, in words that can be shown. `status` is 0 where no answer came.
export class Failure extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

export const key = {
  get: () => sessionStorage.getItem(STORED) || "",
  set: (value) => (value ? sessionStorage.setItem(STORED, value) : sessionStorage.removeItem(STORED)),
};

export async function getJson(path, signal) {
  return (await send(path, { signal })).json();
}

export async function postJson(path, body, signal) {
  return (await send(path, asJson(body, signal))).json();
}

export async function postForm(path, form) {
  return (await send(path, { method: "POST", body: form })).json();
}

// The data of each server-sent event, as text. EventSource cannot send a key, so the stream is read here.
export async function* events(path, body, signal) {
  const reply = await send(path, body === undefined ? { signal } : asJson(body, signal));
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { done, value } = await read(reader);
      if (done) return;
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
        else if (line === "" && data.length) {
          yield data.join("\n");
          data = [];
        }
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

function asJson(body, signal) {
  return { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, signal };
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    throw error.name === "AbortError" ? error : new Failure("The connection to the server broke off.");
  }
}

async function send(path, options) {
  const headers = { ...options.headers, ...(key.get() ? { Authorization: `Bearer ${key.get()}` } : {}) };
  let reply;
  try {
    reply = await fetch(new URL(path, document.baseURI), { ...options, headers, credentials: "omit", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(/[^\x21-\x7e]/.test(key.get()) ? "The key holds a character that no key has." : "The server cannot be reached.");
  }
  if (!reply.ok) throw new Failure(await reason(reply), reply.status);
  return reply;
}

async function reason(reply) {
  const told = await reply.json().then((body) => body.error.message).catch(() => `The server answered with status ${reply.status}.`);
  const again = reply.headers.get("Retry-After");
  return again && !told.includes("try again in") ? `${told} (Try again in ${again} s.)` : told;
}
