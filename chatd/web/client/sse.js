// Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream).

import { ChatdError } from "./errors.js";

const MAX_EVENT = 16 << 20; // UTF-16 code units
const LINE_END = /\r\n?|\n/g;

/**
 * Parses an event stream's bytes as they come, however they are cut.
 * @implements {Api.SseParser}
 */
export class SseParser {
  #decoder = new TextDecoder();
  #line = /** @type {string[]} */ ([]); // of the line that has not ended yet
  #data = /** @type {string[]} */ ([]);
  #event = "";
  #id;
  #numbered = false;
  #size = 0;
  #afterCr = false;

  /** The last id that a finished block left; it persists. */
  lastEventId;

  /** Milliseconds to wait before reconnecting; null until the server has said.
   * @type {number | null}
   */
  retry = null;

  /** @param {string} [lastEventId] */
  constructor(lastEventId = "") {
    this.lastEventId = this.#id = lastEventId;
  }

  /**
   * Return the events that are complete now; the rest waits for the next call, and is dropped if none comes.
   * @param {Uint8Array} bytes
   * @returns {Api.SseEvent[]}
   * @throws {ChatdError} code `too_large`: an event that never ends
   */
  push(bytes) {
    const events = /** @type {Api.SseEvent[]} */ ([]);
    let text = this.#decoder.decode(bytes, { stream: true });
    if (this.#afterCr && text) {
      this.#afterCr = false;
      if (text[0] === "\n") text = text.slice(1);
    }
    let start = 0;
    for (const end of text.matchAll(LINE_END)) {
      this.#hold(text.slice(start, end.index));
      this.#endLine(events);
      start = end.index + end[0].length;
    }
    if (start < text.length) this.#hold(text.slice(start));
    if (text.endsWith("\r")) this.#afterCr = true;
    return events;
  }

  /** @param {string} piece */
  #hold(piece) {
    this.#line.push(piece);
    this.#size += piece.length;
    if (this.#size > MAX_EVENT) throw new ChatdError("An event is too large.", { status: 200, code: "too_large" });
  }

  /** @param {Api.SseEvent[]} events */
  #endLine(events) {
    const line = this.#line.length === 1 ? this.#line[0] : this.#line.join("");
    this.#line = [];
    if (line) this.#take(line);
    else this.#dispatch(events);
  }

  /** @param {string} line */
  #take(line) {
    const colon = line.indexOf(":");
    if (colon === 0) {
      this.#size -= line.length; // comments count only while they last
      return;
    }
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    this.#set(name, value);
  }

  /**
   * @param {string} name
   * @param {string} value
   */
  #set(name, value) {
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#event = value;
    else if (name === "retry" && /^[0-9]+$/.test(value)) this.retry = Number(value);
    else if (name === "id" && !value.includes("\0")) {
      this.#id = value;
      this.#numbered = true;
    }
  }

  /** @param {Api.SseEvent[]} events */
  #dispatch(events) {
    this.lastEventId = this.#id;
    if (this.#data.length) {
      const event = this.#event || "message";
      events.push({ id: this.#id, numbered: this.#numbered, event, data: this.#data.join("\n") });
    }
    this.#data = [];
    this.#event = "";
    this.#numbered = false;
    this.#size = 0;
  }
}

/** @import * as Api from "./chatd-client.d.ts" */
