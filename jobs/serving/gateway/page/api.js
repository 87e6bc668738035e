// The gateway's API, and its troubles as words of words.js.

export class Trouble extends Error {
  constructor(word, values = {}) {
    super(word);
    this.word = word;
    this.values = values;
  }
}

async function ask(path, key, options = {}) {
  if (key && !/^[\x21-\x7e]+$/.test(key)) throw new Trouble("keyCharacters");
  const headers = { "content-type": "application/json", ...options.headers };
  if (key) headers.authorization = `Bearer ${key}`;
  const response = await reach(() => fetch(path, { ...options, headers }));
  if (!response.ok) throw await refusal(response, key);
  return response;
}

// A stop by the user goes through as it is; everything else that fetch throws is the network.
async function reach(step) {
  try {
    return await step();
  } catch (error) {
    throw error.name === "AbortError" ? error : new Trouble("offline");
  }
}

async function refusal(response, key) {
  switch (response.status) {
    case 401:
      return new Trouble(key ? "keyWrong" : "keyNeeded");
    case 403:
      return new Trouble("forbidden");
    case 413:
      return new Trouble("tooLong");
    case 429:
      return new Trouble("limited", { seconds: response.headers.get("retry-after") ?? "1" });
  }
  if (response.status >= 500) return new Trouble("unavailable");
  const detail = await response.json().then((body) => body.error.message, () => response.statusText);
  return new Trouble("refused", { detail });
}

export async function models(key) {
  const response = await ask("/v1/models", key);
  return (await response.json()).data;
}

export async function sendFeedback(key, feedback) {
  await ask("/v1/feedback", key, { method: "POST", body: JSON.stringify(feedback) });
}

// One answer as it is written: first { variant, requestId }, then { text } for each piece, and at the end { tokens }.
export async function* answer(key, { model, messages, user, variant, signal }) {
  const response = await ask("/v1/chat/completions", key, {
    method: "POST",
    signal,
    headers: variant ? { "x-haetsal-variant": variant } : {},
    body: JSON.stringify({ model, messages, user, stream: true, stream_options: { include_usage: true } }),
  });
  yield { variant: response.headers.get("x-haetsal-variant"), requestId: response.headers.get("x-request-id") };
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const event = JSON.parse(data);
    if (event.error) break;
    if (event.usage) yield { tokens: event.usage.completion_tokens };
    const text = event.choices?.[0]?.delta?.content;
    if (text) yield { text };
  }
  throw new Trouble("broken");
}

// The data of each server-sent event. The decoder keeps the bytes of a character that is split between two pieces.
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  while (true) {
    const { done, value } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : new Trouble("broken");
    });
    if (done) return;
    const whole = (rest + value).split("\n\n");
    rest = whole.pop();
    for (const event of whole) if (event.startsWith("data: ")) yield event.slice("data: ".length);
  }
}
