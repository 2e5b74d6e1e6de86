// The client of chatd: durable chat over HTTP, for browsers and Node 20 or newer.

import { ChatStream } from "./chat-stream.js";
import { ChatdError } from "./errors.js";
import { Http } from "./http.js";
import { delayBefore, pause } from "./lifeline.js";
import { SseParser } from "./sse.js";

export { ChatStream, ChatdError, SseParser };

const BACKOFF = { min: 0.5, max: 15 }; // seconds
const LONGEST_ANSWER = 1000; // seconds without a byte; chatd gives a turn 900 by default
const ATTEMPTS = 5; // at a message that is not streamed

/**
 * Speaks with one chatd for one caller.
 * @implements {Api.ChatClient}
 */
export class ChatClient {
  #http;
  #backoff;
  #characterId;

  /** @param {Api.ClientOptions} [options] */
  constructor({ characterId, backoff, ...options } = {}) {
    this.#http = new Http(options);
    this.#backoff = { ...BACKOFF, ...backoff };
    this.#characterId = characterId;
  }

  /**
   * Send a message, wait for the answer and return it; after a broken connection the same request is repeated, which
   * starts nothing twice.
   * @param {string} message 1 to 10,000 characters
   * @param {Api.MessageOptions} [options]
   * @returns {Promise<Api.Answer>}
   * @throws {ChatdError}
   */
  async sendMessage(message, { signal, ...options } = {}) {
    const { body, key } = this.#request(message, options);
    const request = { body, headers: { "Idempotency-Key": key }, signal, silence: LONGEST_ANSWER };
    for (let attempt = 1; ; attempt++) {
      try {
        const answer = await this.#http.exchange("POST", "agent/chat", request);
        if (answer.status !== 202) return answer.body;
        await this.attach(answer.body.session_id, { signal }).completed.catch(() => {}); // the next answer tells
      } catch (error) {
        if (signal?.aborted || !isPassing(error) || attempt >= ATTEMPTS) throw error;
        await pause(delayBefore(attempt, this.#backoff, error.retryAfter ?? 0), signal);
      }
    }
  }

  /**
   * Send a message and stream the answer; reconnects by itself until the turn has ended.
   * @param {string} message 1 to 10,000 characters
   * @param {Api.MessageOptions & Api.StreamOptions} [options]
   * @returns {ChatStream}
   */
  streamChatResponse(message, { sessionId, characterId, idempotencyKey, ...options } = {}) {
    const request = this.#request(message, { sessionId, characterId, idempotencyKey });
    return new ChatStream(this.#http, { ...request, sessionId }, this.#backoff, options);
  }

  /**
   * Stream a session's running turn, or what came after `lastEventId`; no event where there is nothing (more).
   * @param {string} sessionId
   * @param {Api.AttachOptions} [options] `text`, `messageId`: what is known up to `lastEventId`
   * @returns {ChatStream}
   */
  attach(sessionId, { lastEventId, text, messageId, ...options } = {}) {
    return new ChatStream(this.#http, { sessionId, lastEventId, text, messageId }, this.#backoff, options);
  }

  /**
   * Return a page of messages, oldest first: the latest ones, or those before or after a message.
   * @param {string} sessionId
   * @param {Api.HistoryOptions} [options] `limit`: 1 to 1000
   * @returns {Promise<Api.History>}
   */
  getChatHistory(sessionId, { limit, before, after, signal } = {}) {
    return this.#http.json("GET", path("chat/history", sessionId), { query: { limit, before, after }, signal });
  }

  /**
   * Make a session.
   * @param {Api.SessionOptions} [options]
   * @returns {Promise<Api.Session>}
   */
  createSession({ characterId = this.#characterId, title, systemPrompt, signal } = {}) {
    const body = { character_id: characterId, title, system_prompt: systemPrompt };
    return this.#http.json("POST", "agent/session", { body, signal });
  }

  /**
   * Return a page of the caller's sessions, latest activity first.
   * @param {Api.PageOptions} [options] `before`: the `next` of the page before
   * @returns {Promise<Api.SessionList>}
   */
  listSessions({ limit, before, signal } = {}) {
    return this.#http.json("GET", "agent/sessions", { query: { limit, before }, signal });
  }

  /**
   * Return a session.
   * @param {string} sessionId
   * @param {Api.RequestOptions} [options]
   * @returns {Promise<Api.Session>}
   */
  getSession(sessionId, { signal } = {}) {
    return this.#http.json("GET", path("session", sessionId), { signal });
  }

  /**
   * Rename a session and return it.
   * @param {string} sessionId
   * @param {string | null} title at most 200 characters
   * @param {Api.RequestOptions} [options]
   * @returns {Promise<Api.Session>}
   */
  renameSession(sessionId, title, { signal } = {}) {
    return this.#http.json("PATCH", path("session", sessionId), { body: { title }, signal });
  }

  /**
   * Delete a session with all its messages.
   * @param {string} sessionId
   * @param {Api.RequestOptions & { keepalive?: boolean }} [options] `keepalive`: even if the page is left meanwhile
   * @returns {Promise<void>}
   */
  async deleteSession(sessionId, { keepalive, signal } = {}) {
    await this.#http.json("DELETE", path("session", sessionId), { keepalive, signal });
  }

  /**
   * Stop a session's running turn; what it has written is kept.
   * @param {string} sessionId
   * @param {Api.RequestOptions} [options]
   * @returns {Promise<Api.Stopped>}
   */
  stop(sessionId, { signal } = {}) {
    return this.#http.json("POST", path("chat/stop", sessionId), { signal });
  }

  /**
   * Return who the caller is, and what it may.
   * @param {Api.RequestOptions} [options]
   * @returns {Promise<Api.Me>}
   */
  me({ signal } = {}) {
    return this.#http.json("GET", "agent/me", { signal });
  }

  /**
   * @param {string} message
   * @param {Api.MessageOptions} options
   */
  #request(message, { sessionId = null, characterId = this.#characterId, idempotencyKey = newKey() }) {
    return { body: { message, session_id: sessionId, character_id: characterId }, key: idempotencyKey };
  }
}

/**
 * @param {string} of
 * @param {string} sessionId
 */
function path(of, sessionId) {
  return `agent/${of}/${encodeURIComponent(sessionId)}`;
}

/**
 * @param {unknown} error
 * @returns {error is ChatdError}
 */
function isPassing(error) {
  return error instanceof ChatdError && error.passing;
}

/** Return a random idempotency key; crypto.randomUUID is not there on a page that came over plain HTTP. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @import * as Api from "./chatd-client.d.ts" */
