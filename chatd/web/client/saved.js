// What the server has saved of an answer, where its stream can't tell it (any more).

import { ChatdError } from "./errors.js";
import { codePoints } from "./turn.js";

const PAGE = 100;

/**
 * Yield what ends a turn whose events are gone: a `reset` to the saved text, then `done` or `error`.
 * @param {import("./http.js").Http} http
 * @param {import("./turn.js").Turn} turn
 * @param {import("./lifeline.js").Lifeline} life
 * @returns {AsyncGenerator<import("./chatd-client.d.ts").ChatEvent, void, void>}
 */
export async function* recall(http, turn, life) {
  const { message, status } = await findMessage(http, turn, turn.messageId, life);
  turn.replaceText(message?.content ?? "");
  yield { type: "reset", text: turn.text };
  turn.messageId = message?.id ?? null;
  yield message ? endOf(message) : endWithoutMessage(status);
}

/**
 * Return the text that was saved.
 * @param {import("./http.js").Http} http
 * @param {import("./turn.js").Turn} turn
 * @param {string | null} messageId null: nothing was
 * @param {import("./lifeline.js").Lifeline} life
 */
export async function savedText(http, turn, messageId, life) {
  if (messageId === null) return "";
  const { message } = await findMessage(http, turn, messageId, life);
  if (message) return message.content;
  throw new ChatdError("The answer is not there any more.", { status: 404, code: "not_found" });
}

/**
 * Return a message, and the session's status; without an id the last message, if it is an answer.
 * @param {import("./http.js").Http} http
 * @param {import("./turn.js").Turn} turn
 * @param {string | null} id
 * @param {import("./lifeline.js").Lifeline} life
 */
async function findMessage(http, turn, id, life) {
  const path = `agent/chat/history/${encodeURIComponent(turn.sessionId ?? "")}`;
  /** @type {import("./chatd-client.d.ts").History} */
  let page;
  let before = /** @type {string | null} */ (null);
  do {
    page = await life.wait(http.json("GET", path, { query: { limit: PAGE, before }, signal: life.signal }));
    const message = id ? page.messages.find((one) => one.id === id) : page.messages.at(-1);
    if (message?.role === "assistant") return { message, status: page.status };
    before = page.before;
  } while (id && before);
  return { message: null, status: page.status };
}

/**
 * @param {import("./chatd-client.d.ts").Message} message
 * @returns {import("./chatd-client.d.ts").ChatEvent}
 */
function endOf({ id, status, stop_reason, token_usage, content }) {
  if (status === "interrupted") return interrupted(id);
  return { type: "done", message_id: id, status, stop_reason, token_usage, length: codePoints(content) };
}

/**
 * @param {string} status the session's
 * @returns {import("./chatd-client.d.ts").ChatEvent}
 */
function endWithoutMessage(status) {
  if (status !== "idle") return interrupted(null);
  return { type: "done", message_id: null, status: "stopped", stop_reason: null, token_usage: null, length: 0 };
}

/**
 * @param {string | null} message_id
 * @returns {import("./chatd-client.d.ts").ChatEvent}
 */
function interrupted(message_id) {
  return { type: "error", error: "The answer was interrupted.", code: "interrupted", message_id };
}
