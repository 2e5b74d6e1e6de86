// What the tests of streams share: a client that does not wait long, and readers.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { ChatClient } from "../../chatd/web/client/chatd-client.js";
import { done, frames, start, text } from "./fake_server.mjs";

const QUICK = { min: 0.001, max: 0.01 };
export const whole = (...pieces) => frames(start, ...pieces.map(text), done(pieces.join("").length));

export const clientOf = (server, options) => new ChatClient({ baseUrl: server.url, characterId: 7, backoff: QUICK, ...options });

/** Read a stream to its end: the events but those of the connection, those, and what was thrown. */
export async function read(stream) {
  const seen = { events: [], connection: [], error: null };
  try {
    for await (const event of stream) (event.type === "connection" ? seen.connection : seen.events).push(event);
  } catch (error) {
    seen.error = error;
  }
  return { ...seen, kinds: seen.events.map(({ type }) => type).join(" "), text: stream.text };
}

export async function eventually(condition) {
  for (let n = 0; n < 500 && !condition(); n++) await sleep(10);
  assert.ok(condition());
}
