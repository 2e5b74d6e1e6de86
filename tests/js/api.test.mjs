// Every call of the client, against the chatd at CHATD_URL whose model says "Hello, ", "world.".

import assert from "node:assert/strict";
import { test } from "node:test";
import { ChatClient, ChatdError } from "../../chatd/web/client/chatd-client.js";

const client = new ChatClient({ baseUrl: process.env.CHATD_URL, characterId: 7 });
const NOBODYS = `sess-${"0".repeat(32)}`;

test("an answer that is not streamed", async () => {
  const { session_id, status, message } = await client.sendMessage("hi");
  assert.deepEqual([status, message.content, message.role], ["idle", "Hello, world.", "assistant"]);
  const again = await client.sendMessage("hi", { sessionId: session_id, idempotencyKey: "once" });
  assert.deepEqual(await client.sendMessage("hi", { sessionId: session_id, idempotencyKey: "once" }), again);
  assert.equal((await client.getSession(session_id)).message_count, 4);
});

test("an answer by callbacks", async () => {
  const calls = { events: [], texts: [], done: [], errors: [] };
  const stream = client.streamChatResponse("hi", {
    onEvent: ({ type }) => calls.events.push(type),
    onText: (piece, text) => calls.texts.push([piece, text]),
    onDone: (event) => calls.done.push(event),
    onError: (error) => calls.errors.push(error),
  });
  const done = await stream.completed;
  assert.deepEqual(calls.done, [done]);
  assert.equal(done.length, 13);
  assert.deepEqual(calls.errors, []);
  assert.deepEqual(calls.events.slice(0, 2), ["connection", "start"]);
  assert.equal(calls.texts.map(([piece]) => piece).join(""), "Hello, world.");
  assert.equal(calls.texts.at(-1)[1], "Hello, world.");
  const { messages } = await client.getChatHistory(stream.sessionId);
  assert.deepEqual(messages.map(({ id, role }) => [id, role])[1], [stream.messageId, "assistant"]);
});

test("who the caller is", async () => {
  assert.deepEqual(await client.me(), { owner: "anonymous", characters: null, admin: false, expires_at: null });
});

test("sessions: made, listed by pages, read, renamed, deleted", async () => {
  const made = [];
  for (const title of ["one", "two", "three"]) made.push(await client.createSession({ title, characterId: 9 }));
  const first = await client.listSessions({ limit: 2 });
  assert.deepEqual(first.sessions.map(({ title }) => title), ["three", "two"]);
  assert.equal((await client.listSessions({ limit: 1, before: first.next })).sessions[0].title, "one");
  const [{ session_id }] = made;
  assert.equal((await client.renameSession(session_id, "uno")).title, "uno");
  assert.deepEqual([(await client.getSession(session_id)).title, made[0].character_id], ["uno", 9]);
  assert.equal((await client.renameSession(session_id, null)).title, null);
  assert.equal(await client.deleteSession(session_id, { keepalive: true }), undefined);
  await assert.rejects(client.getSession(session_id), { name: "ChatdError", status: 404, code: "not_found" });
});

test("the history by pages, a system prompt in it", async () => {
  const { session_id } = await client.createSession({ systemPrompt: "Be kind." });
  await client.sendMessage("one", { sessionId: session_id });
  const all = await client.getChatHistory(session_id);
  assert.deepEqual(all.messages.map(({ role, content }) => [role, content]), [["system", "Be kind."], ["user", "one"], ["assistant", "Hello, world."]]);
  const last = await client.getChatHistory(session_id, { limit: 1 });
  assert.deepEqual(last.messages, all.messages.slice(2));
  assert.deepEqual((await client.getChatHistory(session_id, { before: last.before })).messages, all.messages.slice(0, 2));
  assert.deepEqual((await client.getChatHistory(session_id, { after: all.messages[1].id })).messages, all.messages.slice(2));
});

test("what is refused says why", async () => {
  await assert.rejects(client.getChatHistory(NOBODYS), { status: 404, code: "not_found" });
  await assert.rejects(client.attach(NOBODYS).completed, { status: 404, code: "not_found" });
  await assert.rejects(client.streamChatResponse("hi", { sessionId: NOBODYS }).completed, { status: 404 });
  const refused = await client.sendMessage(" ").catch((error) => error);
  assert.ok(refused instanceof ChatdError);
  assert.deepEqual([refused.status, refused.code, refused.passing], [400, "invalid_request", false]);
  assert.match(refused.errors.message[0], /empty/);
  assert.equal(refused.problem.detail, refused.message);
  await assert.rejects(new ChatClient({ baseUrl: process.env.CHATD_URL }).createSession(), ({ errors }) => "character_id" in errors);
  await client.sendMessage("hi", { idempotencyKey: "other" });
  await assert.rejects(client.streamChatResponse("ho", { idempotencyKey: "other" }).completed, { status: 422, code: "idempotency_mismatch" });
});

test("to stop where nothing runs, and to attach where nothing is left", async () => {
  const { session_id } = await client.createSession();
  assert.deepEqual(await client.stop(session_id), { session_id, stopped: false, message_id: null });
  assert.equal(await client.attach(session_id).completed, null);
});
