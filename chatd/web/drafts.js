/** Texts that chatd does not have yet: what is being written in a session, and what was sent and may not have arrived. */

import { browser } from "./storage.js";

/** @typedef {"draft" | "sending"} Kind */

export class Drafts {
  constructor(account) {
    this.account = account;
  }

  name(kind, sessionId) {
    return this.account.key(`${kind}:${sessionId ?? "new"}`);
  }

  /**
   * Return a session's text, the idempotency key it was sent with, if it was, and when it was kept (ms).
   * @param {Kind} kind
   * @param {string | null} sessionId null: of the session that it will make
   */
  read(kind, sessionId) {
    try {
      const { text, key, at } = JSON.parse(browser.get(this.name(kind, sessionId)) ?? "{}");
      return { text: String(text ?? ""), key: key ? String(key) : null, at: Number(at ?? 0) };
    } catch {
      return { text: "", key: null, at: 0 };
    }
  }

  /** Keep a text; sent again with the same key, it is the same message. */
  keep(kind, sessionId, text, key = null) {
    browser.set(this.name(kind, sessionId), text && JSON.stringify({ text, key, at: Date.now() }));
  }

  forget(kind, sessionId) {
    this.keep(kind, sessionId, "");
  }

  /** Put a text before a session's draft. */
  add(sessionId, text, key) {
    this.keep("draft", sessionId, ...joined(text, key, this.read("draft", sessionId).text));
  }
}

/** Return a text with another one behind it, and the key, if it is still the text that was sent with it. */
export function joined(text, key, behind) {
  return behind.trim() ? [`${text}\n\n${behind}`, null] : [text, key];
}
