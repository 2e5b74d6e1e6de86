/** What is being written in each session, kept in the browser until it is sent. */

import { browser } from "./storage.js";

export class Drafts {
  constructor(account) {
    this.account = account;
  }

  name(sessionId) {
    return this.account.key(`draft:${sessionId ?? "new"}`);
  }

  /**
   * Return a session's draft, and the idempotency key it was sent with before, if it was.
   * @param {string | null} sessionId null: of the session that it will make
   */
  read(sessionId) {
    try {
      const { text, key } = JSON.parse(browser.get(this.name(sessionId)) ?? "{}");
      return { text: String(text ?? ""), key: key ? String(key) : null };
    } catch {
      return { text: "", key: null };
    }
  }

  /** Keep a text; sent again with the same key, it is the same message. */
  keep(sessionId, text, key = null) {
    browser.set(this.name(sessionId), text && JSON.stringify({ text, key }));
  }

  /** Tell whether a text is kept, whatever else is. */
  has(sessionId, text) {
    return this.read(sessionId).text.includes(text);
  }

  /** Forget a text; another tab may have kept another one meanwhile, which stays. */
  forget(sessionId, text) {
    if (this.read(sessionId).text === text) this.keep(sessionId, "");
  }

  /** Put a text before a session's draft. */
  add(sessionId, text, key) {
    this.keep(sessionId, ...joined(text, key, this.read(sessionId).text));
  }
}

/** Return a text with another one behind it, and the key, if it is still the text that was sent with it. */
export function joined(text, key, behind) {
  return behind.trim() ? [`${text}\n\n${behind}`, null] : [text, key];
}
