/** Messages on their way: each is kept in the browser, under the session it was sent in, until chatd is known to have it. */

import { browser } from "./storage.js";

const KEY_LIFE = 12 * 3600_000; // milliseconds; chatd keeps an idempotency key for twice as long

/**
 * A message that was sent; `key` is its idempotency key.
 * @typedef {{ text: string, key: string, character: number }} Sending
 */

export class Outbox {
  /** @param {import("./account.js").Account} account */
  constructor(account) {
    this.account = account;
    this.turns = new Map(); // the ones of this page, by session
    this.others = openChannel(({ data }) => this.withdraw(data)); // other tabs may be sending the same message
  }

  name(sessionId, key = "") {
    return this.account.key(`sending:${sessionId ?? "new"}:${key}`);
  }

  /** Keep the message of a turn that is about to be begun; sent again, it is not older. */
  put(turn) {
    const { text, key, character } = turn.sending;
    const name = this.name(turn.origin, key);
    this.turns.set(turn.origin, turn);
    if (!browser.get(name)) browser.set(name, JSON.stringify({ text, key, character, at: Date.now() }));
  }

  /** Forget a message, here and in other tabs: it goes back to where it was written. */
  giveBack(sessionId, key) {
    this.remove(sessionId, key);
    this.others?.postMessage(key);
  }

  /** Send a message no more that another tab has given back. */
  withdraw(key) {
    const turn = [...this.turns.values()].find(({ sending }) => sending.key === key);
    if (!turn) return;
    this.turns.delete(turn.origin);
    turn.withdraw();
  }

  /** Forget a message that has arrived. */
  remove(sessionId, key) {
    if (this.turnIn(sessionId)?.sending.key === key) this.turns.delete(sessionId);
    browser.set(this.name(sessionId, key), "");
  }

  /** Return the turn of this page whose message is on its way in a session. */
  turnIn(sessionId) {
    return this.turns.get(sessionId);
  }

  /** Return the oldest message that an earlier page, or another tab, sent in a session, and whether that can be repeated. */
  leftIn(sessionId) {
    const left = browser.keys(this.name(sessionId)).map((name) => JSON.parse(browser.get(name)));
    const [oldest] = left.sort((one, other) => one.at - other.at);
    return oldest ? { ...oldest, isRepeatable: Date.now() - oldest.at < KEY_LIFE } : null;
  }
}

/** Hear what other tabs say; null in a browser that keeps nothing of this site, whose tabs share nothing either. */
function openChannel(hear) {
  try {
    const channel = new BroadcastChannel("chatd:given-back");
    channel.addEventListener("message", hear);
    return channel;
  } catch {
    return null;
  }
}
