/** The list of sessions: found by title, renamed in place, deleted with a way back. */

import { isUnreachable } from "./connection.js";
import { find, fromTemplate, part, showAge } from "./dom.js";
import { Unfinished } from "./unfinished.js";

const PAGE = 50; // sessions
const SEARCHED = 1000; // of them are loaded for a search without being asked for
const UNTITLED = "Untitled";

export class Sessions extends EventTarget {
  /**
   * Dispatches `renamed` (the id and the title that is shown now) and `deleted` (the id).
   * @param {HTMLElement} root the sidebar
   */
  constructor(root, { account, connection, toast }) {
    super();
    Object.assign(this, { account, connection, toast });
    this.list = find("sessions", root);
    this.search = find("session-search", root);
    this.more = find("more-sessions", root);
    this.state = part("sessions-note", root);
    this.search.addEventListener("input", () => this.searchAll());
    this.more.addEventListener("click", () => this.loadMore());
    this.sessions = [];
    this.hidden = new Set(); // deleted, or about to be
    this.deleting = new Unfinished(account, "deleting");
    this.naming = new Unfinished(account, "naming");
    this.titles = new Map(); // the latest ones that are not saved yet, by session
    this.reads = 0; // of the latest sessions
    this.firstValid = 1; // of those reads: what is known now is newer than what the ones before say
    this.next = undefined; // not known yet
    this.current = null;
    this.lastDeleted = null;
  }

  /** Read a page of sessions; what is not saved yet of their titles is newer than what is read. */
  async page(before) {
    const read = () => this.account.client.listSessions({ limit: PAGE, before });
    const page = await this.connection.watch(() => this.account.insist(read));
    for (const session of page.sessions) session.title = this.titleOf(session);
    return page;
  }

  /** Return a session's title, or the later one that is not saved yet. */
  titleOf({ session_id: id, title }) {
    return this.titles.get(id) ?? title;
  }

  /** Read the latest sessions anew, and again where the answer has been overtaken. */
  async refresh() {
    const read = ++this.reads;
    try {
      const page = await this.page();
      if (read < this.firstValid) return this.refresh();
      this.firstValid = read;
      await this.take(page);
    } catch (error) {
      if (!isUnreachable(error)) throw error;
    }
  }

  /** Take over the latest sessions; the older ones that are known stay. */
  take({ sessions, next }) {
    const last = sessions.at(-1)?.updated_at ?? "";
    const ids = new Set(sessions.map((session) => session.session_id));
    const older = this.sessions.filter((known) => known.updated_at < last && !ids.has(known.session_id));
    this.sessions = next === null ? sessions : [...sessions, ...older];
    if (next === null || older.length === 0) this.next = next;
    return this.searchAll();
  }

  async loadMore() {
    const { sessions, next } = await this.page(this.next);
    const known = new Set(this.sessions.map((session) => session.session_id));
    this.sessions.push(...sessions.filter((session) => !known.has(session.session_id)));
    this.next = next;
    this.render();
  }

  /** Search all titles: the pages that are not there yet are loaded as long as the same is looked for. */
  async searchAll() {
    this.render();
    const wanted = this.search.value;
    while (wanted && wanted === this.search.value && this.next && this.sessions.length < SEARCHED) await this.loadMore();
  }

  /** Mark the session that is open; who opens the one that was just deleted wants it back. */
  open(id) {
    this.current = id;
    this.render();
    if (id !== null && id === this.lastDeleted) this.toast.undo();
  }

  known(id) {
    return this.sessions.find((session) => session.session_id === id);
  }

  title(id) {
    return this.known(id)?.title ?? null;
  }

  render() {
    if (find("rename-input", this.list)) return; // not under somebody's hands
    const wanted = this.search.value.trim().toLocaleLowerCase();
    const matches = ({ title }) => (title ?? UNTITLED).toLocaleLowerCase().includes(wanted);
    const shown = this.sessions.filter((session) => !this.hidden.has(session.session_id) && matches(session));
    const items = new Map([...this.list.children].map((item) => [item.dataset.sessionId, item]));
    shown.forEach((session, index) => this.place(this.fill(items.get(session.session_id) ?? this.item(session), session), index));
    while (this.list.childElementCount > shown.length) this.list.lastElementChild.remove();
    this.more.hidden = !this.next;
    const none = wanted ? "No title has this in it." : "Nothing here yet.";
    this.state.textContent = shown.length || this.next === undefined ? "" : none;
  }

  /** Move an item only where it must be moved: what has the focus would lose it. */
  place(item, index) {
    const there = this.list.children[index];
    if (there !== item) this.list.insertBefore(item, there ?? null);
  }

  item({ session_id: id }) {
    const item = fromTemplate("session-template");
    item.dataset.sessionId = id;
    item.querySelector("a").href = `#${id}`;
    find("rename", item).addEventListener("click", () => this.rename(item, id));
    find("delete", item).addEventListener("click", (event) => this.delete(id, event.detail === 0));
    return item;
  }

  fill(item, { session_id: id, title, updated_at: updatedAt }) {
    const name = title ?? UNTITLED;
    item.querySelector(".session-name").textContent = name;
    showAge(item.querySelector("time"), updatedAt);
    if (id === this.current) item.querySelector("a").setAttribute("aria-current", "page");
    else item.querySelector("a").removeAttribute("aria-current");
    find("rename", item).setAttribute("aria-label", `Rename ${name}`);
    find("delete", item).setAttribute("aria-label", `Delete ${name}`);
    return item;
  }

  /** Put a field in place of a title: Enter and leaving it save, Escape does not. */
  rename(item, id) {
    const input = document.createElement("input");
    Object.assign(input, { value: this.title(id) ?? "", maxLength: 200, dir: "auto" });
    input.dataset.testid = "rename-input";
    input.setAttribute("aria-label", "Title");
    const parts = [...item.children];
    item.replaceChildren(input);
    input.select();
    const end = (save) => {
      input.onblur = null;
      const focused = document.activeElement === input;
      item.replaceChildren(...parts);
      if (focused) find("rename", item).focus();
      this.render(); // what was read meanwhile
      if (save && input.value.trim()) this.saveTitle(id, input.value.trim());
    };
    input.onblur = () => end(true);
    input.onkeydown = (event) => {
      if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
      event.preventDefault(); // or it would press the button that gets the focus
      event.stopPropagation();
      end(event.key === "Enter");
    };
  }

  async saveTitle(id, title) {
    if (this.known(id) && this.title(id) !== title) await this.keepTitle(id, title);
  }

  /** Name a new session after its first message, unless somebody has named it meanwhile. */
  nameNew(id, title) {
    return this.naming.finish(id, title, async () => {
      const read = () => this.account.client.getSession(id);
      const session = await this.connection.persist(() => this.account.insist(read));
      if ((session.title ?? this.title(id)) === null) await Promise.all([this.keepTitle(id, title), this.refresh()]);
    });
  }

  /** Show and save a title; while that is under way, a later one waits for it, so that the last one is what is kept. */
  async keepTitle(id, title) {
    const isUnderWay = this.titles.has(id);
    let saved = this.title(id);
    this.titles.set(id, title);
    this.showTitle(id, title);
    if (isUnderWay) return;
    const save = () => this.account.client.renameSession(id, (title = this.titles.get(id)));
    try {
      do ({ title: saved } = await this.connection.persist(() => this.account.insist(save)));
      while (title !== this.titles.get(id));
    } finally {
      this.titles.delete(id);
      this.firstValid = this.reads + 1;
      this.showTitle(id, saved);
    }
  }

  /** Show a title, also in place of what was read while it was being saved. */
  showTitle(id, title) {
    const session = this.known(id);
    if (session) session.title = title;
    this.render();
    this.dispatchEvent(new CustomEvent("renamed", { detail: { id, title } }));
  }

  /** Take a session from the list; it is deleted when the time for undoing that is over. */
  delete(id, byKeyboard) {
    const name = this.title(id) ?? UNTITLED;
    const wasOpen = id === this.current;
    this.toast.show(`Deleted “${name.length > 40 ? `${name.slice(0, 40)}…` : name}”`, {
      done: () => this.reallyDelete(id),
      undone: () => {
        this.hide(id, false);
        if (wasOpen) location.hash = id;
        if (byKeyboard) this.list.querySelector(`[href="#${id}"]`)?.focus();
      },
    });
    this.lastDeleted = id;
    this.hide(id);
    this.dispatchEvent(new CustomEvent("deleted", { detail: id }));
    if (byKeyboard) find("undo").focus(); // what had the focus is gone
  }

  hide(id, hidden = true) {
    this.hidden[hidden ? "add" : "delete"](id);
    this.render();
  }

  /** Delete a session, even if the page is being left. */
  async reallyDelete(id) {
    this.hide(id);
    const ask = () => this.account.client.deleteSession(id, { keepalive: true });
    try {
      await this.deleting.finish(id, "now", () => this.connection.persist(() => this.account.insist(ask)));
    } catch (error) {
      this.hide(id, false);
      throw error;
    }
    this.sessions = this.sessions.filter((session) => session.session_id !== id);
  }

  /** Go on with what an earlier page has left. */
  resume() {
    for (const [id] of this.deleting.left()) this.reallyDelete(id);
    for (const [id, title] of this.naming.left()) this.nameNew(id, title);
  }
}
