/** What is being done to sessions, kept in the browser until it is: if the page is left before, the next one goes on. */

import { isGone } from "./connection.js";
import { browser } from "./storage.js";

export class Unfinished {
  /** @param {import("./account.js").Account} account @param {string} what is done */
  constructor(account, what) {
    Object.assign(this, { account, what });
  }

  name(id = "") {
    return this.account.key(`${this.what}:${id}`);
  }

  /** Do something to a session, unless it is gone; the text is what another page must know to go on. */
  async finish(id, text, does) {
    browser.set(this.name(id), text);
    try {
      await does();
    } catch (error) {
      if (!isGone(error)) throw error;
    } finally {
      browser.set(this.name(id), "");
    }
  }

  /** Return the ids and texts that an earlier page, or another tab, has not finished with. */
  left() {
    const start = this.name();
    return browser.keys(start).map((name) => [name.slice(start.length), browser.get(name)]);
  }
}
