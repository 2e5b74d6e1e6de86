/** What the browser keeps: the token in this tab, all else by owner; if it keeps nothing, the page does. */

const PREFIX = `chatd:${new URL(".", import.meta.url).pathname}:`; // there may be another chatd below another path

class Storage {
  constructor(name) {
    this.memory = new Map(); // what the browser does not take
    try {
      this.area = globalThis[name];
    } catch {
      this.area = null;
    }
  }

  get(key) {
    return this.memory.get(key) ?? this.area?.getItem(PREFIX + key) ?? null;
  }

  /** Return the keys that begin so. */
  keys(start) {
    const kept = Object.keys(this.area ?? {}).filter((key) => key.startsWith(PREFIX));
    const keys = new Set([...kept.map((key) => key.slice(PREFIX.length)), ...this.memory.keys()]);
    return [...keys].filter((key) => key.startsWith(start));
  }

  /** Keep a text, or forget it where it is empty. */
  set(key, text) {
    if (this.isClosed) return;
    this.memory.delete(key);
    try {
      this.area?.removeItem(PREFIX + key);
      if (text) this.area.setItem(PREFIX + key, text);
    } catch {
      this.memory.set(key, text); // full or forbidden: kept as long as the page is open
    }
  }

  /** Keep nothing more. */
  close() {
    this.isClosed = true;
  }

  /** Forget all that begins so. */
  clear(start) {
    for (const key of this.keys(start)) this.set(key, "");
  }
}

export const tab = new Storage("sessionStorage");
export const browser = new Storage("localStorage");
