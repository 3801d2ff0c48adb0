// What the server says, as objects; what goes wrong, as one sentence.

export class Failure extends Error {
  constructor(sentence, status = 0) {
    super(sentence);
    this.status = status;
  }
}

const AWAY = "The server cannot be reached: look whether it runs, then ask again.";
const NO_KEY = "This server asks for an API key: enter yours.";
const LOST = "The connection was lost before the answer was complete: ask again.";

// The first model of /v1/models.
export async function offered(key) {
  const response = await answered("v1/models", { headers: headers(key) });
  return (await response.json()).data[0];
}

// The chunks of a streamed answer.
export async function* chunks(body, key, signal) {
  const asked = { method: "POST", headers: { ...headers(key), "Content-Type": "application/json" }, signal };
  const response = await answered("v1/chat/completions", { ...asked, body: JSON.stringify({ ...body, stream: true }) });
  for await (const line of lines(response)) {
    if (line === "data: [DONE]") return;
    if (!line.startsWith("data: ")) continue;
    const chunk = JSON.parse(line.slice("data: ".length));
    if (chunk.error) throw new Failure(chunk.error.message);
    yield chunk;
  }
  throw new Failure(LOST);
}

function headers(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function answered(address, asked) {
  let response;
  try {
    response = await fetch(address, asked);
  } catch (error) {
    throw error.name === "AbortError" ? error : new Failure(AWAY);
  }
  if (!response.ok) throw new Failure(await refusal(response, "Authorization" in asked.headers), response.status);
  return response;
}

async function refusal(response, withKey) {
  if (response.status === 401) return withKey ? "This API key is wrong: enter another." : NO_KEY;
  const told = await response.json().catch(() => null);
  const after = response.headers.get("Retry-After");
  const again = after ? `ask again in ${after} s.` : "ask again later.";
  if (response.status === 429) return `The server has no room for more questions now: ${again}`;
  if (response.status === 503) return `${(told?.error?.message ?? "The server is not ready.").replace(/\.$/, "")}: ${again}`;
  return told?.error?.message ?? `The server answered with status ${response.status}.`;
}

async function* lines(response) {
  const reader = response.body.getReader(), decoder = new TextDecoder();
  let held = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const found = (held + decoder.decode(value, { stream: true })).split("\n");
      held = found.pop();
      yield* found;
    }
  } catch (error) {
    throw error.name === "AbortError" ? error : new Failure(LOST);
  } finally {
    reader.cancel().catch(() => {});
  }
}
