// A turn's events, over as many connections as it takes.

import { ChatdError } from "./errors.js";
import { Lifeline, delayBefore, isOffline, pause } from "./lifeline.js";
import { recall, savedText } from "./saved.js";
import { SseParser } from "./sse.js";
import { Turn } from "./turn.js";

/**
 * Follows a turn to its end, and reconnects by itself.
 * @implements {AsyncIterable<ChatEvent>}
 */
export class TurnReader {
  #http;
  #request;
  #signal;
  #backoff;
  #retry = /** @type {number | null} */ (null); // seconds
  #failures = 0; // since the last event
  #state = "";
  #begun = false; // whether the server has ever streamed to us

  /**
   * @param {import("./http.js").Http} http
   * @param {StreamRequest} request
   * @param {import("./chatd-client.d.ts").Backoff} backoff
   * @param {AbortSignal} signal
   */
  constructor(http, request, backoff, signal) {
    this.#http = http;
    this.#request = request;
    this.#backoff = backoff;
    this.#signal = signal;
    this.turn = new Turn(request);
  }

  /** Yield the events, until `done`, `error`, or that there is nothing to stream; throws ChatdError, AbortError. */
  async *[Symbol.asyncIterator]() {
    for (;;) {
      try {
        yield* this.#connect();
        return;
      } catch (error) {
        if (this.#signal.aborted) throw this.#signal.reason;
        if (!(error instanceof ChatdError && error.passing)) throw error;
        yield* this.#wait(error);
      }
    }
  }

  /** Yield one connection's events; returns at the turn's end, throws where the connection ends before. */
  async *#connect() {
    const life = new Lifeline(this.#signal, this.#http.silence);
    try {
      const response = await life.wait(this.#ask(life.signal));
      if (response.status === 204 && !this.#begun) return;
      yield* this.#tell("open", null, null);
      if (response.status === 204) yield* recall(this.#http, this.turn, life);
      else yield* this.#read(response, life);
    } finally {
      life.close();
    }
  }

  /**
   * Begin the turn, or, where that is known to have been done, go on after the last event.
   * @param {AbortSignal} signal
   */
  async #ask(signal) {
    const { sessionId, lastEventId } = this.turn;
    const { body, key } = this.#request;
    const headers = { Accept: "text/event-stream" };
    const response =
      body && !(sessionId && lastEventId)
        ? await this.#http.send("POST", "agent/chat/stream", { body, headers: { ...headers, "Idempotency-Key": key }, signal })
        : await this.#http.send("GET", `agent/chat/stream/${encodeURIComponent(sessionId ?? "")}`, {
            headers: { ...headers, "Last-Event-ID": lastEventId },
            signal,
          });
    if (response.status !== 204) requireStream(response);
    return response;
  }

  /**
   * @param {Response} response
   * @param {Lifeline} life
   */
  async *#read(response, life) {
    this.#begun = true;
    const parser = new SseParser(this.turn.lastEventId);
    let first = true;
    for await (const bytes of chunksOf(response, life)) {
      const blocks = parser.push(bytes);
      if (parser.retry !== null) this.#retry = parser.retry / 1000;
      for (const block of blocks) {
        const event = parse(block.data);
        const place = this.turn.place(block, event.type, first);
        if (place === "gap") throw new ChatdError("An event is missing.", { code: "gap" });
        if (place === "foreign") return yield* recall(this.#http, this.turn, life);
        first &&= !block.numbered;
        if (place === "next") yield* this.#take(block, event, life);
        if (place === "next" && (event.type === "done" || event.type === "error")) return;
      }
    }
    throw new ChatdError("The stream was cut.", { code: "cut" });
  }

  /**
   * @param {import("./chatd-client.d.ts").SseEvent} block
   * @param {any} event
   * @param {Lifeline} life
   */
  async *#take(block, event, life) {
    if (event.type === "done" && this.turn.differs(event.length)) {
      this.turn.replaceText(await savedText(this.#http, this.turn, event.message_id, life));
      yield /** @type {ChatEvent} */ ({ type: "reset", text: this.turn.text });
    }
    this.#failures = 0;
    this.turn.take(block, event);
    yield /** @type {ChatEvent} */ (event);
  }

  /** @param {ChatdError} error why there has to be another connection */
  async *#wait(error) {
    this.#failures++;
    const min = Math.max(this.#backoff.min, this.#retry ?? 0);
    const delay = delayBefore(this.#failures, { ...this.#backoff, min }, error.retryAfter ?? 0);
    yield* this.#tell(isOffline() ? "offline" : "waiting", delay, error.code);
    await pause(delay, this.#signal);
  }

  /**
   * @param {"open" | "waiting" | "offline"} state
   * @param {number | null} delay
   * @param {string | null} code
   */
  async *#tell(state, delay, code) {
    if (state === "open" && this.#state === "open") return;
    this.#state = state;
    yield /** @type {ChatEvent} */ ({ type: "connection", state, delay, attempt: this.#failures, code });
  }
}

/**
 * Yield a response's bytes as they come.
 * @param {Response} response
 * @param {Lifeline} life
 * @returns {AsyncGenerator<Uint8Array, void, void>}
 */
async function* chunksOf(response, life) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  for (;;) {
    const { done, value } = await life.wait(readFrom(reader));
    if (done) return;
    yield value;
  }
}

/** @param {ReadableStreamDefaultReader<Uint8Array>} reader */
async function readFrom(reader) {
  try {
    return await reader.read();
  } catch (cause) {
    throw new ChatdError("The stream was cut.", { code: "cut", cause });
  }
}

/** @param {Response} response */
function requireStream(response) {
  const type = response.headers.get("Content-Type") ?? "";
  if (/^text\/event-stream *(;|$)/i.test(type) && response.body) return;
  throw new ChatdError("This is not a stream from chatd.", { status: response.status, code: "unexpected_response" });
}

/** @param {string} data */
function parse(data) {
  try {
    const event = JSON.parse(data);
    if (typeof event?.type === "string") return event;
  } catch {
    // told below
  }
  throw new ChatdError("This is not an event from chatd.", { status: 200, code: "unexpected_response" });
}

/** @typedef {import("./chatd-client.d.ts").ChatEvent} ChatEvent */
/**
 * What to stream: `body` begins a turn, without it the one of `sessionId` is read from after `lastEventId`.
 * @typedef {{ body?: object, key?: string, sessionId?: string | null, lastEventId?: string | null, text?: string, messageId?: string | null }} StreamRequest
 */
