/** Who uses the page: the token that was pasted, what it allows, and the dialog that asks for one. */

import { ChatClient } from "./client/chatd-client.js";
import { find } from "./dom.js";
import { browser, tab } from "./storage.js";

const FIRST_CHARACTER = 1; // where the owner has no list of them, one is as good as another

/** Tell whether an error says that the token is missing, wrong or over. */
export const isSignedOut = (error) => error?.status === 401;

/** Dispatches `change` where a token allows something else than the one before. */
export class Account extends EventTarget {
  constructor() {
    super();
    this.token = tab.get("token");
    this.client = new ChatClient({ token: () => this.use() });
    this.me = null;
    this.isOver = false;
    this.signingIn = null;
  }

  /** Find out who this is; asks for a token where one is needed. */
  async open() {
    this.take(await this.insist(() => this.client.me()));
  }

  /** Take note of what a token allows; the character that was chosen stays, if it may. */
  take(me) {
    this.me = me;
    const kept = Number(browser.get(this.key("character")));
    const own = me.characters ?? [FIRST_CHARACTER];
    this.character = own.includes(kept) ? kept : (own[0] ?? FIRST_CHARACTER);
    this.dispatchEvent(new Event("change"));
  }

  /** Return the name under which something of this owner's is kept in the browser. */
  key(name) {
    return `${encodeURIComponent(this.me.owner)}:${name}`;
  }

  use() {
    if (this.isOver) throw new DOMException("somebody else may be signed in", "AbortError");
    return this.token;
  }

  choose(character) {
    this.character = character;
    browser.set(this.key("character"), String(character));
  }

  /** Make a call, again and again with new tokens while they are refused. */
  async insist(call) {
    for (;;) {
      try {
        return await call();
      } catch (error) {
        if (!isSignedOut(error)) throw error;
        await this.signIn();
      }
    }
  }

  /** Ask for a token until one is accepted; whoever waits, waits for the same dialog. */
  signIn() {
    this.signingIn ??= this.ask().finally(() => {
      this.signingIn = null;
    });
    return this.signingIn;
  }

  async ask() {
    const dialog = find("sign-in");
    const form = dialog.querySelector("form");
    const problem = dialog.querySelector("[role=alert]");
    problem.textContent = this.token ? "Your token is no longer accepted: paste a new one." : "";
    const keepOpen = () => dialog.showModal();
    dialog.addEventListener("close", keepOpen);
    dialog.showModal();
    await new Promise((resolve) => {
      form.onsubmit = async (event) => {
        event.preventDefault();
        if (await this.accepts(find("token-input"), problem)) resolve();
      };
    });
    dialog.removeEventListener("close", keepOpen);
    dialog.close();
  }

  /** Try a token; a new owner gets a new page, on which nothing of the one before can be. */
  async accepts(input, problem) {
    const token = input.value.trim();
    try {
      const me = await new ChatClient({ token }).me();
      input.value = "";
      tab.set("token", token);
      if (this.me && this.me.owner !== me.owner) await this.startOver();
      this.token = token;
      this.take(me);
      return true;
    } catch (error) {
      problem.textContent = isSignedOut(error) ? "This token is not accepted." : (error.detail ?? "This is not a token.");
      input.select();
      return false;
    }
  }

  /** Forget the token and what the browser kept of its owner. */
  async signOut() {
    tab.clear("");
    browser.clear(this.key(""));
    await this.startOver();
  }

  /** Load the page anew, with no session open; never returns. Until it is there, this one does nothing for anybody. */
  startOver() {
    this.isOver = true;
    browser.close();
    history.replaceState(null, "", location.pathname + location.search);
    location.reload();
    return new Promise(() => {});
  }
}
