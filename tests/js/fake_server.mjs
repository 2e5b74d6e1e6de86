// A server that says what chatd never would, or would at a moment that can't be chosen: it plays answers in order.

import { createServer } from "node:http";

export const TURN = `turn-${"1".repeat(32)}`;
export const OTHER = `turn-${"2".repeat(32)}`;
export const SESSION = `sess-${"1".repeat(32)}`;
export const ANSWER = `msg-${"1".repeat(32)}`;

export const start = { type: "start", session_id: SESSION, turn_id: TURN, message_id: ANSWER, user_message_id: "msg-0" };
export const text = (piece) => ({ type: "text", text: piece });
export const done = (length, more) => ({ type: "done", message_id: ANSWER, status: "complete", stop_reason: "end_turn", token_usage: null, length, ...more });
export const frame = (number, event, turn = TURN) => `id: ${turn}.${number}\ndata: ${JSON.stringify(event)}\n\n`;
export const frames = (...events) => events.map((event, at) => frame(at + 1, event)).join("");

/** Answer by a stream: its parts as they are, then `end`: "end" (cleanly), "cut" (a RST) or "stay". */
export const stream = (parts, end = "end") => (request, response) => {
  response.writeHead(200, { "Content-Type": "text/event-stream; charset=utf-8" });
  response.flushHeaders();
  response.write(parts, () => {
    if (end === "end") response.end();
    else if (end === "cut") request.socket.resetAndDestroy();
  });
};

export const problem = (status, code, headers = {}) => (_, response) => {
  response.writeHead(status, { "Content-Type": "application/problem+json", ...headers });
  response.end(JSON.stringify({ type: "about:blank", title: "No", status, code, detail: `It is ${code}.` }));
};

export const json = (body, status = 200) => (_, response) => {
  response.writeHead(status, { "Content-Type": "application/json" });
  response.end(JSON.stringify(body));
};

export const nothing = (_, response) => response.writeHead(204).end();
export const hangUp = (request) => request.socket.resetAndDestroy();
export const silence = () => {};

export const history = (messages, more) => json({ session_id: SESSION, status: "idle", message_count: 2, before: null, messages, ...more });
export const answer = (content, more) => ({ id: ANSWER, role: "assistant", content, status: "complete", stop_reason: "end_turn", token_usage: null, ...more });

/**
 * Start a server for a test.
 * @returns {Promise<{ url: string, requests: { method: string, url: string, headers: object, body: any }[], open: () => number }>}
 */
export async function serve(t, ...answers) {
  const requests = [];
  let open = 0; // answers; of connections Node keeps a spare one
  const server = createServer(async (request, response) => {
    open++;
    response.on("close", () => open--);
    let body = "";
    for await (const chunk of request) body += chunk;
    requests.push({ method: request.method, url: request.url, headers: request.headers, body: body && JSON.parse(body), at: performance.now() });
    const answer = answers.shift();
    if (answer) answer(request, response);
    else problem(500, "internal")(request, response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => (server.closeAllConnections(), server.close()));
  return { url: `http://127.0.0.1:${server.address().port}/`, requests, open: () => open };
}
