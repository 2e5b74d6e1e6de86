/** What the browser keeps: the token in this tab, drafts and the character by owner. One that keeps nothing is fine. */

const PREFIX = "chatd:";

class Storage {
  constructor(name) {
    try {
      this.area = globalThis[name];
    } catch {
      this.area = null;
    }
  }

  get(key) {
    return this.area?.getItem(PREFIX + key) ?? null;
  }

  /** Keep a text, or forget it where it is empty. */
  set(key, text) {
    try {
      if (text) this.area?.setItem(PREFIX + key, text);
      else this.area?.removeItem(PREFIX + key);
    } catch {
      // a full or forbidden storage only means that nothing is kept
    }
  }

  /** Keep nothing more. */
  close() {
    this.area = null;
  }

  /** Forget all that begins so. */
  clear(start) {
    for (const key of Object.keys(this.area ?? {})) {
      if (key.startsWith(PREFIX + start)) this.area.removeItem(key);
    }
  }
}

export const tab = new Storage("sessionStorage");
export const browser = new Storage("localStorage");
