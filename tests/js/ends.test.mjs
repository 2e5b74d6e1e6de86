// How streams and requests end: by errors, by aborts, by those who read them; and what is sent.

import assert from "node:assert/strict";
import { test } from "node:test";
import { ChatClient } from "../../chatd/web/client/chatd-client.js";
import { ANSWER, SESSION, TURN, answer, done, frame, frames, hangUp, json, nothing, problem, serve, silence, start, stream, text } from "./fake_server.mjs";
import { clientOf, read, eventually, whole } from "./reading.mjs";

for (const [name, play, expected] of [
  ["400", problem(400, "invalid_request"), { status: 400, code: "invalid_request", detail: "It is invalid_request.", passing: false }],
  ["401", problem(401, "unauthorized"), { status: 401, code: "unauthorized" }],
  ["404", problem(404, "not_found"), { status: 404, code: "not_found" }],
  ["409", problem(409, "turn_in_progress"), { status: 409, code: "turn_in_progress" }],
  ["422", problem(422, "idempotency_mismatch"), { status: 422 }],
  ["500", problem(500, "internal"), { status: 500, code: "internal" }],
  ["a wait that is too long", problem(429, "rate_limited", { "Retry-After": "86400" }), { status: 429, retryAfter: 86400, passing: false }],
  ["a page of a proxy", (_, response) => response.writeHead(403, { "Content-Type": "text/html" }).end("<h1>No</h1>"), { status: 403, code: "http_403" }],
  ["a page instead of a stream", (_, response) => response.writeHead(200, { "Content-Type": "text/html" }).end("hi"), { status: 200, code: "unexpected_response" }],
  ["a redirect", (_, response) => response.writeHead(302, { Location: "http://127.0.0.1:9/" }).end(), { status: 302, code: "redirected" }],
  ["no JSON", stream("data: {\n\n"), { status: 200, code: "unexpected_response" }],
  ["no event", stream("data: 1\n\n"), { status: 200, code: "unexpected_response" }],
]) {
  test(`what waiting does not mend is thrown: ${name}`, async (t) => {
    const server = await serve(t, play, play, stream(frames(start)), play);
    await assert.rejects(clientOf(server).streamChatResponse("hi").completed, { name: "ChatdError", ...expected });
    assert.equal((await read(clientOf(server).attach(SESSION))).error.status, expected.status);
    assert.equal((await read(clientOf(server).streamChatResponse("hi"))).error.status, expected.status);
    assert.equal(server.requests.length, 4);
  });
}

test("an abort ends everything with the signal's reason, wherever it comes", async (t) => {
  t.mock.method(Math, "random", () => 0.5); // by chance, the next attempt could come before the abort
  for (const play of [silence, stream(frames(start, text("a")), "stay"), hangUp, problem(503, "unavailable", { "Retry-After": "30" })]) {
    const server = await serve(t, play);
    const controller = new AbortController();
    const told = [];
    const followed = clientOf(server, { backoff: { min: 30, max: 30 } }).streamChatResponse("hi", {
      signal: controller.signal, onError: (error) => told.push(error),
    });
    setTimeout(() => controller.abort(), 150);
    assert.equal((await read(followed)).error?.name, "AbortError");
    await assert.rejects(followed.completed, { name: "AbortError" });
    await eventually(() => server.open() === 0);
    assert.deepEqual([told, server.requests.length], [[], 1]);
  }
});

test("a signal that was aborted before sends nothing", async (t) => {
  const server = await serve(t);
  const reason = new Error("mine");
  assert.equal((await read(clientOf(server).streamChatResponse("hi", { signal: AbortSignal.abort(reason) }))).error, reason);
  await assert.rejects(clientOf(server).getSession(SESSION, { signal: AbortSignal.abort(reason) }), reason);
  assert.equal(server.requests.length, 0);
});

test("a consumer that breaks off closes the connection", async (t) => {
  const server = await serve(t, stream(frames(start, text("a"), text("b")), "stay"));
  const followed = clientOf(server).streamChatResponse("hi");
  for await (const event of followed) if (event.type === "text") break;
  assert.deepEqual([followed.text, followed.lastEventId], ["a", `${TURN}.2`]);
  await assert.rejects(followed.completed, { name: "AbortError" });
  await eventually(() => server.open() === 0);
});

test("cancel closes the connection", async (t) => {
  const server = await serve(t, stream(frames(start), "stay"));
  const followed = clientOf(server).streamChatResponse("hi");
  setTimeout(() => followed.cancel(), 100);
  assert.equal((await read(followed)).error?.name, "AbortError");
  await eventually(() => server.open() === 0);
});

test("the message is sent before anyone reads, and an iterator gets what `completed` has read", async (t) => {
  const server = await serve(t, stream(whole("a", "b")), stream(frames(start, text("a")), "stay"), stream(whole()));
  const followed = clientOf(server).streamChatResponse("hi");
  await eventually(() => server.requests.length === 1);
  await followed.completed;
  assert.equal(followed.text, "ab");
  assert.equal((await read(followed)).kinds, "start text text done");
  const early = clientOf(server).streamChatResponse("hi");
  early.completed.catch(() => {});
  const seen = [];
  for await (const { type } of early) {
    seen.push(type);
    if (type === "text") break;
  }
  assert.deepEqual(seen, ["connection", "start", "text"]);
});

test("callbacks see every piece once, and what one throws is told", async (t) => {
  const server = await serve(t, stream(frames(start, text("a"))), stream(frame(7, { type: "reset", text: "xy" }) + frame(8, text("z")) + frame(9, done(3))), stream(whole("a")));
  const calls = [];
  const note = (name) => (...given) => calls.push([name, ...given]);
  await clientOf(server).streamChatResponse("hi", { onText: note("text"), onDone: ({ length }) => calls.push(["done", length]), onError: note("error") }).completed;
  assert.deepEqual(calls, [["text", "a", "a"], ["text", "", "xy"], ["text", "z", "xyz"], ["done", 3]]);
  const mine = new Error("mine");
  const throwing = () => {
    throw mine;
  };
  await assert.rejects(clientOf(server).streamChatResponse("hi", { onText: throwing }).completed, mine);
  await eventually(() => server.open() === 0);
});

test("the token is asked for before each request, and never sent where it was not asked for", async (t) => {
  const server = await serve(t, stream(frames(start)), stream(frame(2, done(0))), json({}), json({}));
  let n = 0;
  await read(clientOf(server, { token: async () => `t${++n}` }).streamChatResponse("hi"));
  await clientOf(server, { token: "mine" }).me();
  await clientOf(server, { token: () => null }).me();
  assert.deepEqual(server.requests.map(({ headers }) => headers.authorization), ["Bearer t1", "Bearer t2", "Bearer mine", undefined]);
});

test("a token that does not come is waited for until an abort or a silence", async (t) => {
  const server = await serve(t);
  const waiting = (options) => clientOf(server, { token: () => new Promise(() => {}), ...options });
  await assert.rejects(waiting().me({ signal: AbortSignal.timeout(50) }), { name: "TimeoutError" });
  await assert.rejects(waiting({ silence: 0.1 }).me(), { name: "ChatdError", code: "silent" });
  const followed = waiting().streamChatResponse("hi");
  setTimeout(() => followed.cancel(), 50);
  assert.equal((await read(followed)).error?.name, "AbortError");
  assert.equal(server.requests.length, 0);
});

test("a token that is no header is an error, not a broken network", async (t) => {
  const server = await serve(t);
  assert.equal((await read(clientOf(server, { token: "a\nb" }).streamChatResponse("hi"))).error.name, "TypeError");
});

test("a message is sent until it is answered, and not twice", async (t) => {
  const body = { session_id: SESSION, status: "idle", turn_id: TURN, message_id: ANSWER, message: answer("hi") };
  const accepted = { session_id: SESSION, status: "thinking", turn_id: TURN, message_id: ANSWER };
  const server = await serve(t, hangUp, problem(503, "unavailable"), json(accepted, 202), stream(whole("hi")), json(body));
  assert.deepEqual(await clientOf(server).sendMessage("hi", { idempotencyKey: "k" }), body);
  assert.deepEqual(server.requests.filter(({ method }) => method === "POST").map(({ headers }) => headers["idempotency-key"]), ["k", "k", "k", "k"]);
});

test("a message that is not answered is an error at last, and one that the model could not answer at once", async (t) => {
  const gone = await serve(t, ...Array(9).fill(hangUp));
  await assert.rejects(clientOf(gone).sendMessage("hi"), { name: "ChatdError", code: "unreachable", status: 0 });
  assert.equal(gone.requests.length, 5);
  const failed = await serve(t, problem(502, "upstream_failed"));
  await assert.rejects(clientOf(failed).sendMessage("hi"), { code: "upstream_failed", status: 502 });
  assert.equal(failed.requests.length, 1);
});

test("an answer that is cut, or none of chatd's, is an error", async (t) => {
  const cut = (request, response) => (response.writeHead(200, { "Content-Type": "application/json", "Content-Length": "99" }), response.write("{"), setTimeout(() => request.socket.destroy(), 20));
  const page = (_, response) => response.writeHead(200, { "Content-Type": "text/html" }).end("<html>");
  const server = await serve(t, cut, page, silence);
  await assert.rejects(clientOf(server).getSession(SESSION), { code: "cut", status: 0 });
  await assert.rejects(clientOf(server).getSession(SESSION), { code: "unexpected_response", status: 200 });
  await assert.rejects(clientOf(server, { silence: 0.2 }).getSession(SESSION), { code: "silent", status: 0 });
});

test("requests go below the base URL, whatever its end", async (t) => {
  const server = await serve(t, json({}), json({}), nothing);
  for (const base of ["chat", "chat/"]) await new ChatClient({ baseUrl: server.url + base }).listSessions({ limit: 5, before: "a b&" });
  await new ChatClient({ baseUrl: new URL("chat", server.url) }).deleteSession("../x");
  assert.deepEqual(server.requests.map(({ url }) => url), ["/chat/agent/sessions?limit=5&before=a+b%26", "/chat/agent/sessions?limit=5&before=a+b%26", "/chat/agent/session/..%2Fx"]);
  assert.throws(() => new ChatClient(), TypeError);
});
