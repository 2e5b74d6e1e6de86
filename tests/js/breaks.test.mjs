// Every way in which a connection can break, and how the stream goes on.

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { ANSWER, OTHER, SESSION, TURN, answer, done, frame, frames, hangUp, history, nothing, problem, serve, silence, start, stream, text } from "./fake_server.mjs";
import { clientOf, read, whole } from "./reading.mjs";

test("a POST that broke before its first event is sent again with the same key", async (t) => {
  const server = await serve(t, hangUp, stream("retry: 5\n", "cut"), stream(": ping\n\nid: " + TURN, "end"), stream(whole("ab", "c")));
  const seen = await read(clientOf(server).streamChatResponse("hi", { sessionId: SESSION }));
  assert.equal(seen.kinds, "start text text done");
  assert.equal(seen.text, "abc");
  assert.deepEqual(server.requests.map(({ method, url }) => `${method} ${url}`), Array(4).fill("POST /agent/chat/stream"));
  assert.equal(new Set(server.requests.map(({ headers }) => headers["idempotency-key"])).size, 1);
  assert.match(server.requests[0].headers["idempotency-key"], /^[0-9a-f]{32}$/);
  assert.deepEqual(server.requests[3].body, { message: "hi", session_id: SESSION, character_id: 7 });
  assert.deepEqual(seen.connection.map(({ state, code }) => [state, code]), [
    ["waiting", "unreachable"], ["open", null], ["waiting", "cut"], ["open", null], ["waiting", "cut"], ["open", null],
  ]);
});

test("after the first event the turn is read on from its cursor, wherever the bytes break", async (t) => {
  const bytes = Buffer.from(frames(start, text("é"), text("😀"), done(2)));
  for (let at = 0; at <= bytes.length; at += 7) {
    const head = bytes.subarray(0, at);
    const taken = head.toString().split("\n\n").length - 1;
    if (taken === 4) break;
    const rest = bytes.toString().split("\n\n").slice(taken).join("\n\n");
    const server = await serve(t, stream(head, at % 2 ? "cut" : "end"), stream(rest));
    const seen = await read(clientOf(server).streamChatResponse("hi"));
    assert.equal(seen.kinds, "start text text done");
    assert.equal(seen.text, "é😀");
    assert.equal(server.requests[1].method, taken ? "GET" : "POST");
    if (taken) assert.equal(server.requests[1].headers["last-event-id"], `${TURN}.${taken}`);
  }
});

test("an event that was seen is dropped, a gap means another connection", async (t) => {
  const server = await serve(
    t,
    stream(frame(1, start) + frame(2, text("a")) + frame(2, text("a")) + frame(1, start) + frame(4, text("c"))),
    stream(frame(2, text("a")) + frame(3, text("b")) + frame(4, text("c")) + frame(5, done(3))),
  );
  const seen = await read(clientOf(server).streamChatResponse("hi"));
  assert.equal(seen.kinds, "start text text text done");
  assert.equal(seen.text, "abc");
  assert.equal(server.requests[1].headers["last-event-id"], `${TURN}.2`);
  assert.equal(seen.connection[1].code, "gap");
});

test("events of types that are not known, and those without an id, are passed on and are no gap", async (t) => {
  const note = { type: "note", of: 1 };
  const server = await serve(t, stream(frame(1, start) + `data: ${JSON.stringify(note)}\n\n` + frame(2, note) + frame(3, done(0))));
  const seen = await read(clientOf(server).streamChatResponse("hi"));
  assert.deepEqual(seen.events.slice(1, 3), [note, note]);
  assert.equal(seen.kinds, "start note note done");
});

test("a reset for a cursor that can't be honoured takes the place of the text", async (t) => {
  const server = await serve(
    t,
    stream(frames(start, text("wro"))),
    stream(frame(7, { type: "reset", text: "right" }) + frame(8, text("!")) + frame(9, done(6))),
  );
  const seen = await read(clientOf(server).streamChatResponse("hi"));
  assert.equal(seen.kinds, "start text reset text done");
  assert.equal(seen.text, "right!");
});

test("a text that is not as long as what was saved is mended from the history", async (t) => {
  const server = await serve(
    t,
    stream(frames(start, text("a"), done(3))),
    history([{ id: "msg-9", role: "user", content: "next" }], { before: "msg-9" }),
    history([{ id: "msg-0", role: "user", content: "hi" }, answer("a😀c")]),
  );
  const stream_ = clientOf(server).streamChatResponse("hi");
  const seen = await read(stream_);
  assert.equal(seen.kinds, "start text reset done");
  assert.equal(seen.text, "a😀c");
  assert.equal((await stream_.completed).length, 3);
  assert.deepEqual(server.requests.slice(1).map(({ url }) => url), [
    `/agent/chat/history/${SESSION}?limit=100`, `/agent/chat/history/${SESSION}?limit=100&before=msg-9`,
  ]);
});

test("where the history can't be had, the end is asked for again", async (t) => {
  const server = await serve(
    t, stream(frames(start, text("a"), done(3))), problem(503, "unavailable"), stream(frame(3, done(3))), history([answer("abc")]),
  );
  const seen = await read(clientOf(server).streamChatResponse("hi"));
  assert.equal(seen.kinds, "start text reset done");
  assert.equal(seen.text, "abc");
});

test("code points are counted, not UTF-16 units", async (t) => {
  const server = await serve(t, stream(frames(start, text("😀e\u0301"), done(3))));
  assert.equal((await read(clientOf(server).streamChatResponse("hi"))).kinds, "start text done");
});

for (const [name, messages, more, kinds, end] of [
  ["complete", [answer("all of it")], {}, "start text reset done", { status: "complete", length: 9 }],
  ["stopped", [answer("al", { status: "stopped", stop_reason: null })], {}, "start text reset done", { status: "stopped", length: 2 }],
  ["interrupted", [answer("al", { status: "interrupted" })], { status: "error" }, "start text reset error", { code: "interrupted", message_id: ANSWER }],
  ["not there, as it was stopped before any text", [], {}, "start text reset done", { status: "stopped", message_id: null }],
  ["not there, as it failed", [], { status: "error" }, "start text reset error", { code: "interrupted", message_id: null }],
]) {
  test(`an answer whose events are gone is told by the history: ${name}`, async (t) => {
    const later = [{ id: "msg-5", role: "user", content: "x" }, { id: "msg-6", role: "assistant", content: "y" }];
    for (const gone of [nothing, stream(frame(3, { type: "reset", text: "y" }, OTHER) + frame(4, done(1), OTHER))]) {
      const server = await serve(t, stream(frames(start, text("a"))), gone, history([...messages, ...later], more));
      const seen = await read(clientOf(server).streamChatResponse("hi"));
      assert.equal(seen.kinds, kinds);
      assert.equal(seen.text, messages[0]?.content ?? "");
      for (const [key, value] of Object.entries(end)) assert.equal(seen.events.at(-1)[key], value);
    }
  });
}

test("to attach where there is nothing ends without events", async (t) => {
  const server = await serve(t, nothing, nothing);
  const seen = await read(clientOf(server).attach(SESSION));
  assert.deepEqual([seen.kinds, seen.connection, seen.error], ["", [], null]);
  assert.equal(await clientOf(server).attach(SESSION, { lastEventId: `${TURN}.3` }).completed, null);
  assert.equal(server.requests[1].headers["last-event-id"], `${TURN}.3`);
});

test("to attach after an event goes on with what was known", async (t) => {
  const rest = frame(3, text("b")) + frame(4, done(2));
  const server = await serve(t, stream(rest), stream(rest), stream(rest), history([answer("ab")]));
  const options = { lastEventId: `${TURN}.2` };
  assert.equal((await read(clientOf(server).attach(SESSION, { ...options, text: "a" }))).text, "ab");
  const unknown = await read(clientOf(server).attach(SESSION, options));
  assert.deepEqual([unknown.text, unknown.kinds], ["b", "text done"]);
  const wrong = await read(clientOf(server).attach(SESSION, { ...options, text: "xyz" }));
  assert.deepEqual([wrong.text, wrong.kinds], ["ab", "text reset done"]);
});

test("to attach with the cursor of a turn that is gone gets the last one", async (t) => {
  const server = await serve(t, stream(frame(3, { type: "reset", text: "y" }, OTHER) + frame(4, done(1), OTHER)));
  const attached = clientOf(server).attach(SESSION, { lastEventId: `${TURN}.2`, text: "a" });
  assert.deepEqual([(await read(attached)).kinds, attached.text, attached.turnId], ["reset done", "y", OTHER]);
});

test("an attached turn that ended while the connection was broken is told by the history", async (t) => {
  const server = await serve(t, stream(": ping\n\n"), nothing, history([answer("all")]));
  const seen = await read(clientOf(server).attach(SESSION));
  assert.deepEqual([seen.kinds, seen.text], ["reset done", "all"]);
});

test("a turn that fails is told by its event, by `completed` and by `onError`", async (t) => {
  const failure = { type: "error", error: "The model could not.", code: "upstream_cut", message_id: ANSWER };
  const server = await serve(t, ...Array(2).fill(stream(frames(start, text("a"), failure))));
  const followed = clientOf(server).streamChatResponse("hi");
  const seen = await read(followed);
  assert.deepEqual([seen.error, seen.events.at(-1)], [null, failure]);
  const expected = { name: "ChatdError", code: "upstream_cut", detail: failure.error, status: 0 };
  await assert.rejects(followed.completed, expected);
  const error = await new Promise((onError) => clientOf(server).streamChatResponse("hi", { onError }));
  assert.deepEqual({ code: error.code, detail: error.detail }, { code: "upstream_cut", detail: failure.error });
});

test("429, 502, 503 and 504 are tried again, after Retry-After", async (t) => {
  const wait = { "Retry-After": "1" };
  const server = await serve(
    t, problem(503, "unavailable", wait), (_, response) => response.writeHead(502).end("<html>"), problem(504, "x"), problem(429, "rate_limited"), stream(frames(start)), problem(503, "unavailable"), stream(frame(2, done(0))),
  );
  const seen = await read(clientOf(server).streamChatResponse("hi"));
  assert.equal(seen.kinds, "start done");
  assert.deepEqual(seen.connection.map(({ state, attempt, code }) => `${state} ${attempt} ${code}`), [
    "waiting 1 unavailable", "waiting 2 http_502", "waiting 3 x", "waiting 4 rate_limited", "open 4 null", "waiting 1 cut", "waiting 2 unavailable", "open 2 null",
  ]);
  assert.ok(seen.connection[0].delay >= 1 && seen.connection[0].delay < 1.1);
  assert.ok(server.requests[1].at - server.requests[0].at >= 990);
  assert.ok(server.requests[2].at - server.requests[1].at < 500);
});

test("Retry-After may be a date", async (t) => {
  const server = await serve(t, problem(429, "rate_limited", { "Retry-After": new Date(Date.now() + 3_600_000).toUTCString() }));
  const { error } = await read(clientOf(server).streamChatResponse("hi"));
  assert.ok(error.retryAfter > 3500 && error.retryAfter <= 3600);
});

test("delays grow by jitter up to a limit, from what the server asks for, and shrink after an event", async (t) => {
  const refusals = Array(8).fill(hangUp);
  const server = await serve(t, stream("retry: 8\n\n" + frames(start)), ...refusals, stream(frame(2, text("a"))), stream(frame(3, done(1))));
  const { connection } = await read(clientOf(server, { backoff: { min: 0.001, max: 0.04 } }).streamChatResponse("hi"));
  const delays = connection.filter(({ state }) => state === "waiting").map(({ delay }) => delay);
  for (const [at, most] of [8, 16, 32, 40, 40, 40, 40, 40, 40, 8].entries()) assert.ok(delays[at] <= most / 1000, `${at}: ${delays[at]}`);
  assert.equal(delays.length, 10);
  assert.ok(Math.max(...delays) > 0.008, "none was longer than the first may be");
});

test("silence is a break, of a stream and of an answer that does not come; a ping is none", async (t) => {
  let pinging;
  const pings = (_, response) => {
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.write(frames(start));
    pinging = setInterval(() => response.write(": ping\n\n"), 100);
    setTimeout(() => response.write(frame(2, text("a"))), 2200);
  };
  t.after(() => clearInterval(pinging));
  const server = await serve(t, silence, pings, stream(frame(3, done(1))));
  const reading = read(clientOf(server, { silence: 1 }).streamChatResponse("hi"));
  await sleep(3500);
  clearInterval(pinging);
  const seen = await reading;
  assert.equal(seen.kinds, "start text done");
  assert.deepEqual(seen.connection.map(({ code }) => code), ["silent", null, "silent", null]);
});

test("a reader that takes its time is no silence", async (t) => {
  const server = await serve(t, stream(frames(start, text("a")), "stay"), stream(frame(3, done(1))));
  const seen = [];
  for await (const event of clientOf(server, { silence: 0.3 }).streamChatResponse("hi")) {
    seen.push(event.type);
    if (event.type === "text") await sleep(700);
    if (event.type === "text") assert.equal(server.requests.length, 1);
  }
  assert.deepEqual(seen, ["connection", "start", "text", "connection", "connection", "done"]);
});

test("a browser that comes online again is not kept waiting", async (t) => {
  const target = new EventTarget();
  const names = ["addEventListener", "removeEventListener", "navigator"];
  const before = names.map((name) => Object.getOwnPropertyDescriptor(globalThis, name));
  const online = { onLine: true };
  const values = [target.addEventListener.bind(target), target.removeEventListener.bind(target), online];
  names.forEach((name, at) => Object.defineProperty(globalThis, name, { value: values[at], configurable: true }));
  t.after(() => names.forEach((name, at) => (before[at] ? Object.defineProperty(globalThis, name, before[at]) : delete globalThis[name])));

  const server = await serve(t, stream(frames(start, text("a")), "stay"), stream(frame(3, done(1))));
  const states = [];
  const followed = clientOf(server, { backoff: { min: 600, max: 600 } }).streamChatResponse("hi");
  for await (const event of followed) {
    if (event.type === "connection") states.push(`${event.state} ${event.code}`);
    if (event.type === "text") {
      setTimeout(() => ((online.onLine = false), target.dispatchEvent(new Event("offline"))), 50);
      setTimeout(() => ((online.onLine = true), target.dispatchEvent(new Event("online"))), 150);
    }
  }
  assert.deepEqual(states, ["open null", "offline offline", "open null"]);
});
