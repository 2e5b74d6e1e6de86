// What an application in TypeScript writes: this has to be accepted, and each line after @ts-expect-error refused.

import { ChatClient, ChatdError, SseParser, type ChatEvent, type ChatStream, type Message } from "chatd-client";

const client = new ChatClient({ baseUrl: "https://chat.example/", token: async () => null, backoff: { max: 5 } });

export async function follow(signal: AbortSignal): Promise<string> {
  const stream: ChatStream = client.streamChatResponse("hi", { signal, characterId: 7, onText: (piece) => piece.trim() });
  for await (const event of stream) {
    if (event.type === "retry") console.log(event.attempt.toFixed(), event.max_attempts, event.reason.trim());
    if (event.type === "connection" && event.state === "waiting") console.log(event.delay?.toFixed(1));
    // @ts-expect-error: it may be null
    if (event.type === "done") event.message_id.trim();
    // @ts-expect-error: there is no such event
    if (event.type === "dnoe") break;
  }
  const done = await stream.completed;
  return done === null ? "" : stream.text.slice(0, done.length);
}

export async function rest(sessionId: string): Promise<Message[]> {
  try {
    await client.attach(sessionId, { lastEventId: "turn-1.1", text: "a" }).completed;
  } catch (error) {
    if (error instanceof ChatdError && error.status === 401) console.log(error.detail.trim(), error.retryAfter?.toFixed());
  }
  const { messages } = await client.getChatHistory(sessionId, { limit: 10, before: null });
  const characters: number[] | null = (await client.me()).characters;
  await client.deleteSession(sessionId, { keepalive: characters !== null });
  return messages.filter(({ status }) => status !== "interrupted");
}

// @ts-expect-error: a message is a string
client.sendMessage(1);
// @ts-expect-error: there is no such option
client.streamChatResponse("hi", { onTxet: () => {} });
// @ts-expect-error: streams are made by the client
new client.ChatStream();

export const types: ChatEvent["type"][] = new SseParser().push(new Uint8Array()).map(() => "text");
