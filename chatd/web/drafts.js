/** What is being written in each session, kept in the browser until it is sent. */

import { browser } from "./storage.js";

const GAP = "\n\n"; // between two texts

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

  /** Keep a text in the place of another one, or behind what there is; what other tabs have put there stays (twice, if need be). */
  replace(sessionId, old, text, key = null) {
    if (old === text) return;
    const kept = framed(this.read(sessionId).text);
    const place = old.trim() ? kept.indexOf(framed(old)) : -1;
    const [from, to] = place < 0 ? [kept.length - GAP.length, kept.length] : [place, place + framed(old).length];
    const all = (kept.slice(0, from) + framed(text) + kept.slice(to)).slice(GAP.length, -GAP.length);
    this.keep(sessionId, all, all === text ? key : null);
  }

  /** Put a text before a session's draft. */
  add(sessionId, text, key) {
    this.keep(sessionId, ...joined(text, key, this.read(sessionId).text));
  }
}

/** Return a text with another one behind it, and the key, if it is still the text that was sent with it. */
export function joined(text, key, behind) {
  return behind.trim() ? [text + GAP + behind, null] : [text, key];
}

/** Return a text with a gap on both sides, or only a gap where it is blank. */
const framed = (text) => (text.trim() ? GAP + text + GAP : GAP);
