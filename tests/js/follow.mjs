// Follows one turn and prints each event as a line of JSON, then how it ended; the process ends only if nothing is left.

import { ChatClient } from "../../chatd/web/client/chatd-client.js";

const { url, message, sessionId: session, attach, tokens, abortAt, ...options } = JSON.parse(process.argv[2]);
const token = tokens ? () => (tokens.length > 1 ? tokens.shift() : tokens[0]) : null;
const client = new ChatClient({ baseUrl: url, characterId: 7, backoff: { min: 0.01, max: 0.2 }, token, ...options });
const controller = new AbortController();
const given = { signal: controller.signal, ...attach };
const stream = attach ? client.attach(attach.sessionId, given) : client.streamChatResponse(message, { sessionId: session, ...given });

const print = (value) => console.log(JSON.stringify(value));
let error = null;
try {
  for await (const event of stream) {
    print(event);
    if (event.type === abortAt) controller.abort();
  }
} catch ({ name, status, code }) {
  error = { name, status, code };
}
const { text, sessionId, turnId, messageId, lastEventId } = stream;
print({ type: "end", error, text, sessionId, turnId, messageId, lastEventId });
