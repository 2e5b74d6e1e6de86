/** Messages on their way: each is kept in the browser, under the session it was sent in, until chatd is known to have it. */

const KEY_LIFE = 12 * 3600_000; // milliseconds; chatd keeps an idempotency key for twice as long

export class Outbox {
  /** @param {import("./drafts.js").Drafts} drafts */
  constructor(drafts) {
    this.drafts = drafts;
    this.turns = new Map(); // the ones of this page, by session
  }

  /** Keep the message of a turn that is about to be begun. */
  put(turn) {
    this.drafts.keep("sending", turn.origin, turn.sending.text, turn.sending.key);
    this.turns.set(turn.origin, turn);
  }

  /** Forget a message: it has arrived, or goes back to where it was written. */
  remove({ origin }) {
    this.turns.delete(origin);
    this.drafts.forget("sending", origin);
  }

  /** Return the turn of this page whose message is on its way in a session. */
  turnIn(sessionId) {
    return this.turns.get(sessionId);
  }

  /** Return a message that an earlier page sent in a session, and its key as long as that makes sending again safe. */
  leftIn(sessionId) {
    const { text, key, at } = this.drafts.read("sending", sessionId);
    return text ? { text, key: Date.now() - at < KEY_LIFE ? key : null } : null;
  }
}
