// What a caller holds of a turn that is streamed: an iterator, callbacks, a promise of its end.

import { ChatdError } from "./errors.js";
import { TurnReader } from "./turn-reader.js";

/**
 * A turn's stream. The request is sent at once; after that, events are read as they are asked for: by iterating, by
 * callbacks, by `completed`. `text` and the ids are always those of the event that was handed out last.
 * @implements {Api.ChatStream}
 */
export class ChatStream {
  #controller = new AbortController();
  #reader;
  #events;
  #callbacks;
  #signal;
  #first; // which sends the request
  #queue = /** @type {Promise<Result>[]} */ ([]);
  #taken = false; // by an iterator
  #driving = /** @type {Promise<void> | null} */ (null);
  #settle = /** @type {{ resolve: (event: Api.DoneEvent | null) => void, reject: (error: unknown) => void }} */ ({});
  #completed = /** @type {Promise<Api.DoneEvent | null>} */ (
    new Promise((resolve, reject) => (this.#settle = { resolve, reject }))
  );

  /**
   * @param {import("./http.js").Http} http
   * @param {import("./turn-reader.js").StreamRequest} request
   * @param {Api.Backoff} backoff
   * @param {Api.StreamOptions} options
   */
  constructor(http, request, backoff, { signal, ...callbacks }) {
    this.#reader = new TurnReader(http, request, backoff, this.#controller.signal);
    this.#events = this.#reader[Symbol.asyncIterator]();
    this.#callbacks = callbacks;
    this.#signal = signal;
    if (signal?.aborted) this.#follow();
    signal?.addEventListener("abort", this.#follow);
    this.#completed.catch(() => {}); // whoever wants to know has asked
    this.#queue.push((this.#first = this.#pull()));
    this.#first.catch(() => {});
    if (Object.values(callbacks).some(Boolean)) this.#drive();
  }

  get text() {
    return this.#reader.turn.text;
  }

  get sessionId() {
    return this.#reader.turn.sessionId;
  }

  get turnId() {
    return this.#reader.turn.turnId;
  }

  get messageId() {
    return this.#reader.turn.messageId;
  }

  get lastEventId() {
    return this.#reader.turn.lastEventId;
  }

  /** A promise of the `done` event; null where there was nothing to stream; rejects with ChatdError or AbortError. */
  get completed() {
    if (!this.#taken) this.#drive();
    return this.#completed;
  }

  /** Close the connection; the turn itself goes on (see ChatClient.stop). */
  cancel() {
    this.#controller.abort();
  }

  /** @returns {AsyncIterator<Api.ChatEvent, void, void>} */
  [Symbol.asyncIterator]() {
    this.#taken = true;
    return {
      next: () => this.#next(),
      return: async () => {
        this.cancel();
        await this.#events.return();
        this.#close(this.#controller.signal.reason);
        return { done: true, value: undefined };
      },
    };
  }

  /** @returns {Promise<Result>} */
  async #next() {
    await this.#driving;
    return this.#queue.shift() ?? this.#pull();
  }

  /** Read to the end, or until an iterator takes over. */
  #drive() {
    this.#driving ??= this.#readOn().catch(() => {}); // told by `completed` and `onError`
  }

  async #readOn() {
    let { done } = await this.#first;
    while (!done && !this.#taken) {
      const result = this.#pull();
      this.#queue.push(result);
      ({ done } = await result);
    }
  }

  /**
   * Read one event and tell everyone who wanted to know.
   * @returns {Promise<Result>}
   */
  async #pull() {
    try {
      const result = await this.#events.next();
      if (result.done) this.#close(null);
      else this.#report(result.value);
      return result;
    } catch (error) {
      this.#fail(error);
      throw error;
    }
  }

  /** @param {Api.ChatEvent} event */
  #report(event) {
    const { onEvent, onText, onDone } = this.#callbacks;
    onEvent?.(event);
    if (event.type === "text") onText?.(event.text, this.text);
    else if (event.type === "reset") onText?.("", this.text);
    else if (event.type === "done") {
      onDone?.(event);
      this.#settle.resolve(event);
    } else if (event.type === "error") this.#fail(new ChatdError(event.error, { code: event.code }));
  }

  /** @param {unknown} error */
  #fail(error) {
    const aborted = this.#controller.signal.aborted;
    this.#close(error);
    if (!aborted) this.#callbacks.onError?.(/** @type {Error} */ (error));
  }

  /** @param {unknown} error why there will be no `done`; null: there is nothing to stream */
  #close(error) {
    this.#signal?.removeEventListener("abort", this.#follow);
    this.#controller.abort();
    if (error === null) this.#settle.resolve(null);
    else this.#settle.reject(error);
  }

  #follow = () => this.#controller.abort(this.#signal?.reason);
}

/** @typedef {IteratorResult<Api.ChatEvent, void>} Result */
/** @import * as Api from "./chatd-client.d.ts" */
