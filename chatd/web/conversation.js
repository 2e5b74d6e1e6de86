/** The open session: its messages, page by page, and the turn that runs in it, wherever it was begun. */

import { isUnreachable } from "./connection.js";
import { MessageList } from "./message-list.js";
import { Turn } from "./turn.js";

const PAGE = 50; // messages

export class Conversation extends EventTarget {
  /**
   * Dispatches `change` (title, state), `sent` and `unsent` (a message got through, or not) and `missing`.
   * @param {object} parts account, connection, announcer, scrolling; the elements messages, older, empty
   */
  constructor(parts) {
    super();
    Object.assign(this, parts);
    this.messages = new MessageList(parts.messages, () => this.tryAgain());
    this.older.addEventListener("click", () => this.loadOlder());
    this.scrolling.onNear(this.older, () => this.loadOlder());
    this.clear();
  }

  get client() {
    return this.account.client;
  }

  get sessionId() {
    return this.session?.session_id ?? null;
  }

  get busy() {
    return this.turn !== null;
  }

  tell(type, detail = null) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  clear() {
    this.life?.abort();
    this.turn?.leave();
    this.life = new AbortController();
    this.session = null;
    this.turn = null;
    this.before = null;
    this.messages.clear();
    this.older.hidden = true;
    this.announcer.clear();
  }

  /** Show a session, or none: the next message then makes one. */
  async open(sessionId) {
    this.clear();
    this.empty.hidden = sessionId !== null;
    this.tell("change");
    if (sessionId === null) return;
    const { life } = this;
    const loaded = await this.load(sessionId, life.signal);
    if (!loaded || life !== this.life) return;
    const [session, page] = loaded;
    this.session = session;
    this.messages.put(page.messages);
    this.scrolling.toEnd();
    this.setBefore(page.before);
    this.tell("change");
    this.note(page);
  }

  async load(sessionId, signal) {
    const read = () => Promise.all([this.client.getSession(sessionId), this.client.getChatHistory(sessionId, { limit: PAGE, signal })]);
    try {
      return await this.connection.persist(() => this.account.insist(read), signal);
    } catch (error) {
      if (signal.aborted) return null;
      if (error.status === 404) return this.tell("missing");
      throw error;
    }
  }

  /** Take note of a session's state: attach to a turn that runs, offer another try after one that failed. */
  note({ status, message_count: count }) {
    this.count = count;
    if (status === "thinking" || status === "executing") this.attach();
    else if (status === "error") this.messages.last?.fail("The last answer could not be completed.");
  }

  setBefore(before) {
    this.before = before;
    this.older.hidden = before === null;
  }

  async loadOlder() {
    if (this.loadingOlder || this.before === null) return;
    const { life, before } = this;
    this.loadingOlder = true;
    try {
      const page = await this.history({ limit: PAGE, before, signal: life.signal });
      if (life !== this.life) return;
      this.scrolling.keepPlace(() => {
        this.messages.put(page.messages, true);
        this.setBefore(page.before);
      });
    } catch (error) {
      if (!isUnreachable(error) && error.name !== "AbortError") throw error;
    } finally {
      this.loadingOlder = false;
    }
  }

  history(query) {
    const { sessionId } = this;
    return this.connection.watch(() => this.account.insist(() => this.client.getChatHistory(sessionId, query)));
  }

  /** Look whether something happened elsewhere, and show it. */
  async poll() {
    const { life, sessionId } = this;
    if (this.busy || sessionId === null) return;
    try {
      const session = await this.connection.watch(() => this.account.insist(() => this.client.getSession(sessionId)));
      if (life !== this.life || this.busy) return;
      const moved = session.message_count !== this.count || session.status === "thinking";
      const renamed = session.title !== this.session.title;
      this.session = session;
      if (moved) await this.catchUp();
      if (renamed) this.tell("change");
    } catch (error) {
      if (life !== this.life) return;
      if (error.status === 404) this.tell("missing");
      else if (!isUnreachable(error) && error.name !== "AbortError") throw error;
    }
  }

  /** Load what came after the last message that is shown, and attach where a turn runs. */
  async catchUp() {
    const { life } = this;
    let page;
    do {
      page = await this.history({ after: this.messages.lastSaved, limit: PAGE, signal: life.signal });
      if (life !== this.life) return;
      this.messages.put(page.messages);
    } while (page.messages.length === PAGE);
    if (!this.busy) this.note(page);
  }

  /** Send a message; it begins a turn, which is shown as it goes. */
  async send(text, idempotencyKey) {
    const { client, sessionId } = this;
    const characterId = this.session?.character_id ?? this.account.character;
    this.empty.hidden = true;
    this.messages.last?.forgive();
    const sending = this.messages.send(text);
    this.scrolling.toEnd();
    const connect = (before, signal) =>
      before?.lastEventId
        ? client.attach(before.sessionId, { lastEventId: before.lastEventId, text: before.text, signal })
        : client.streamChatResponse(text, { sessionId, characterId, idempotencyKey, signal });
    await this.run(new Turn(this, connect, sending));
  }

  async attach() {
    const { client, sessionId } = this;
    const goOn = (before) => before?.lastEventId && { lastEventId: before.lastEventId, text: before.text };
    await this.run(new Turn(this, (before, signal) => client.attach(sessionId, { ...goOn(before), signal })));
  }

  async run(turn) {
    const { life } = this;
    this.turn = turn;
    this.tell("change");
    let failure = null;
    try {
      await turn.watch();
    } catch (error) {
      failure = error;
    }
    if (failure && turn.sending && !turn.started) this.fail(turn, failure, life);
    if (life !== this.life) return;
    this.turn = null;
    this.tell("change");
    if (failure?.status === 404 && this.sessionId) this.tell("missing");
    else if (turn.started && !failure) await this.settle();
  }

  /** A message that did not get through goes back to where it was written. */
  fail(turn, error, life) {
    turn.sending.remove();
    if (life === this.life) this.empty.hidden = this.sessionId !== null;
    this.tell("unsent", { error, text: turn.sending.text, sessionId: turn.sessionId, here: life === this.life });
  }

  /** Look what the session holds after a turn: perhaps the next one runs already. */
  async settle() {
    try {
      await this.catchUp();
    } catch (error) {
      if (!isUnreachable(error) && error.name !== "AbortError" && error.status !== 404) throw error;
    }
  }

  /** A turn has started: it has a session now, and the message that began it an id. */
  async began(turn, userMessageId) {
    const { sending } = turn;
    const here = this.turn === turn;
    if (sending) this.tell("sent", { text: sending.text, sessionId: turn.sessionId, isNew: turn.isNew, title: titleOf(sending.text), here });
    if (!here) throw new DOMException("another session is open now", "AbortError");
    if (sending) this.arrived(sending, userMessageId, turn.sessionId);
    else if (!this.messages.find(userMessageId)) await this.catchUp();
  }

  arrived(sending, id, sessionId) {
    this.session ??= { session_id: sessionId, character_id: this.account.character, title: titleOf(sending.text) };
    this.messages.arrived(sending, id);
    this.tell("change");
  }

  async tryAgain() {
    const last = this.messages.shown.findLast(({ role }) => role === "user");
    if (last && !this.busy) await this.send(last.text);
  }
}

/** Make a title of a message: its first line, cut at a word. */
function titleOf(text) {
  const line = text.trim().split("\n", 1)[0];
  const characters = [...line];
  if (characters.length <= 60) return line;
  return `${characters.slice(0, 60).join("").replace(/\s+\S*$/, "")}…`;
}
