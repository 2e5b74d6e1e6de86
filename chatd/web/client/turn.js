// What is known of a turn, by the events that were taken.

const EVENT_ID = /^(turn-[0-9a-f]{32})\.([0-9]{1,15})$/;

/** A turn as far as its reader has come. */
export class Turn {
  sessionId = /** @type {string | null} */ (null);
  turnId = /** @type {string | null} */ (null);
  messageId = /** @type {string | null} */ (null);
  lastEventId = "";
  text = "";
  #number = 0; // of the last event taken
  #whole = true; // whether `text` is all of the text

  /** @param {{ sessionId?: string | null, lastEventId?: string | null, text?: string, messageId?: string | null }} start */
  constructor({ sessionId, lastEventId, text, messageId }) {
    this.sessionId = sessionId ?? null;
    this.messageId = messageId ?? null;
    this.text = text ?? "";
    if (lastEventId) {
      this.#follow(lastEventId);
      this.#whole = text !== undefined;
    }
  }

  /**
   * Tell where an event belongs: it is the `next` one, was `seen`, leaves a `gap`, or is `foreign` (another turn's).
   * @param {import("./chatd-client.d.ts").SseEvent} block
   * @param {string} type of the event
   * @param {boolean} first whether it is the first of its connection: where a cursor could not be honoured, a reset
   * @returns {"next" | "seen" | "gap" | "foreign"}
   */
  place(block, type, first) {
    const id = block.numbered ? EVENT_ID.exec(block.id) : null;
    if (!id) return "next";
    const jumps = first && type === "reset";
    if (this.turnId && id[1] !== this.turnId) return jumps && !this.messageId ? "next" : "foreign";
    const ahead = Number(id[2]) - this.#number;
    if (jumps || ahead === 1) return "next";
    return ahead < 1 ? "seen" : "gap";
  }

  /**
   * Take an event that is the next one.
   * @param {import("./chatd-client.d.ts").SseEvent} block
   * @param {any} event its JSON
   */
  take(block, event) {
    if (block.numbered) this.#follow(block.id);
    if (event.type === "start") {
      this.sessionId = event.session_id;
      this.messageId = event.message_id;
    } else if (event.type === "text") this.text += event.text;
    else if (event.type === "reset") this.replaceText(event.text);
    else if (event.type === "done" || event.type === "error") this.messageId = event.message_id;
  }

  /** @param {string} text all of it */
  replaceText(text) {
    this.text = text;
    this.#whole = true;
  }

  /**
   * Whether the text is not what was saved; where its beginning is not known, nobody can tell.
   * @param {number} length code points
   */
  differs(length) {
    return this.#whole && codePoints(this.text) !== length;
  }

  /** @param {string} lastEventId */
  #follow(lastEventId) {
    this.lastEventId = lastEventId;
    const id = EVENT_ID.exec(lastEventId);
    if (!id) return;
    this.turnId = id[1] ?? null;
    this.#number = Number(id[2]);
  }
}

/**
 * Return the length of a text as chatd counts it.
 * @param {string} text
 */
export function codePoints(text) {
  let count = 0;
  for (const _ of text) count++;
  return count;
}
