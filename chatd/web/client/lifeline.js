// How long a request may live, and how long to wait for the next one.

import { ChatdError } from "./errors.js";

const LOOKS = 9; // at the clock, in the time of a silence

/** A request's lifetime: until it is closed, its caller aborts it, the browser goes offline, or nothing is heard. */
export class Lifeline {
  #controller = new AbortController();
  #since = 0; // when the wait under way began, 0: none is
  #caller;
  #silence;
  #timer;

  /**
   * @param {AbortSignal | null | undefined} caller
   * @param {number} silence seconds, by the clock on the wall: one that slept has waited, too
   */
  constructor(caller, silence) {
    this.#caller = caller;
    this.#silence = silence * 1000;
    caller?.addEventListener("abort", this.#follow);
    listen("offline", this.#goOffline);
    if (Number.isFinite(silence)) this.#timer = setInterval(this.#look, this.#silence / LOOKS);
    if (caller?.aborted) this.#follow();
  }

  get signal() {
    return this.#controller.signal;
  }

  /**
   * Wait for something of the request; the time counts as silence.
   * @template T
   * @param {Promise<T>} something
   * @returns {Promise<T>}
   */
  async wait(something) {
    this.#since = Date.now();
    try {
      return await something;
    } catch (error) {
      throw this.signal.aborted ? this.signal.reason : error;
    } finally {
      this.#since = 0;
    }
  }

  /**
   * End the request, if it has not ended, and leave nothing behind.
   * @param {unknown} [reason]
   */
  close(reason) {
    clearInterval(this.#timer);
    this.#caller?.removeEventListener("abort", this.#follow);
    unlisten("offline", this.#goOffline);
    this.#controller.abort(reason);
  }

  #follow = () => this.close(this.#caller?.reason);

  #goOffline = () => this.close(new ChatdError("The network is away.", { code: "offline" }));

  #look = () => {
    if (!this.#since || Date.now() - this.#since < this.#silence) return;
    this.close(new ChatdError("Nothing came for too long.", { code: "silent" }));
  };
}

/**
 * Wait, but not longer than until the browser is online again.
 * @param {number} seconds
 * @param {AbortSignal | null} [signal]
 * @returns {Promise<void>} rejects when it is aborted
 */
export function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      unlisten("online", end);
      signal?.removeEventListener("abort", end);
      if (signal?.aborted) reject(signal.reason);
      else resolve();
    };
    const timer = setTimeout(end, seconds * 1000);
    listen("online", end);
    signal?.addEventListener("abort", end);
    if (signal?.aborted) end();
  });
}

/**
 * Wait for something, but not longer than until it is aborted.
 * @template T
 * @param {T | Promise<T>} something
 * @param {AbortSignal | null} [signal]
 * @returns {Promise<T>}
 */
export function unlessAborted(something, signal) {
  return new Promise((resolve, reject) => {
    const end = () => reject(signal?.reason);
    const settled = Promise.resolve(something).finally(() => signal?.removeEventListener("abort", end));
    settled.then(resolve, reject);
    signal?.addEventListener("abort", end);
    if (signal?.aborted) end();
  });
}

/**
 * Return the seconds to wait before an attempt: exponential, capped, with full jitter, so that clients which lost one
 * server do not find the next one all at once.
 * @param {number} attempt from 1
 * @param {import("./chatd-client.d.ts").Backoff} backoff
 * @param {number} [least] seconds that the server asks for
 */
export function delayBefore(attempt, { min, max }, least = 0) {
  const most = Math.min(max, min * 2 ** Math.min(attempt - 1, 30));
  return least + Math.random() * most;
}

/** Whether the browser says that there is no network; anything else is always online. */
export function isOffline() {
  return globalThis.navigator?.onLine === false;
}

/**
 * @param {string} name
 * @param {() => void} listener
 */
function listen(name, listener) {
  globalThis.addEventListener?.(name, listener);
}

/**
 * @param {string} name
 * @param {() => void} listener
 */
function unlisten(name, listener) {
  globalThis.removeEventListener?.(name, listener);
}
