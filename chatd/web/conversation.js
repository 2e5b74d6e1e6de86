/** The open session: its messages, page by page, and the turn that runs in it, wherever it was begun. */

import { isUnreachable } from "./connection.js";
import { Message } from "./message.js";
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
    this.shown = [];
    this.before = null;
    this.messages.replaceChildren();
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
    this.put(page.messages);
    this.scrolling.toEnd();
    this.setBefore(page.before);
    this.tell("change");
    this.note(page);
  }

  async load(sessionId, signal) {
    const read = () => Promise.all([this.client.getSession(sessionId), this.client.getChatHistory(sessionId, { limit: PAGE, signal })]);
    for (let seconds = 1; ; seconds = Math.min(seconds * 2, 15)) {
      try {
        return await this.connection.watch(() => this.account.insist(read));
      } catch (error) {
        if (signal.aborted) return null;
        if (error.status === 404) return this.tell("missing");
        if (!isUnreachable(error)) throw error;
        await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
      }
    }
  }

  /** Take note of a session's state: attach to a turn that runs, offer another try after one that failed. */
  note({ status, message_count: count }) {
    this.count = count;
    const last = this.shown.at(-1);
    if (status === "thinking" || status === "executing") this.attach();
    else if (status === "error" && last) last.fail("The last answer could not be completed.");
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
      this.scrolling.keepPlace(() => this.put(page.messages, true));
      this.setBefore(page.before);
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

  /** Show messages after those that are shown, or before them; one that is shown already stays. */
  put(messages, earlier = false) {
    const unseen = messages.filter(({ id }) => !this.find(id)).map((fields) => this.make(fields));
    this.shown = earlier ? [...unseen, ...this.shown] : [...this.shown, ...unseen];
    const elements = unseen.map(({ element }) => element);
    if (earlier) this.messages.prepend(...elements);
    else this.messages.append(...elements);
  }

  make(fields) {
    return new Message(fields, () => this.tryAgain());
  }

  find(id) {
    return this.shown.find((message) => message.id === id);
  }

  drop(message) {
    message.remove();
    this.shown = this.shown.filter((other) => other !== message);
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
      const after = this.shown.findLast(({ id, status }) => id && status !== "error" && status !== "streaming")?.id;
      page = await this.history({ after, limit: PAGE, signal: life.signal });
      if (life !== this.life) return;
      this.put(page.messages);
    } while (page.messages.length === PAGE);
    if (!this.busy) this.note(page);
  }

  /** Send a message; it begins a turn, which is shown as it goes. */
  async send(text, idempotencyKey) {
    const { client, sessionId } = this;
    const characterId = this.session?.character_id ?? this.account.character;
    this.empty.hidden = true;
    this.shown.at(-1)?.forgive();
    const sending = this.make({ role: "user", content: text, status: "sending" });
    this.messages.append(sending.element);
    this.scrolling.toEnd();
    const connect = (before, signal) =>
      before?.lastEventId
        ? client.attach(before.sessionId, { lastEventId: before.lastEventId, signal })
        : client.streamChatResponse(text, { sessionId, characterId, idempotencyKey, signal });
    await this.run(new Turn(this, connect, sending));
  }

  async attach() {
    const { client, sessionId } = this;
    await this.run(new Turn(this, (before, signal) => client.attach(sessionId, { lastEventId: before?.lastEventId, signal })));
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
    if (turn.started && !failure) await this.settle();
    if (failure?.status === 404 && this.sessionId) this.tell("missing");
    if (life === this.life) this.tell("change");
  }

  /** A message that did not get through goes back to where it was written. */
  fail(turn, error, life) {
    turn.sending.remove();
    if (life === this.life) this.empty.hidden = this.shown.length > 0 || this.sessionId !== null;
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
    if (sending) this.arrived(sending, userMessageId, turn);
    else if (!this.find(userMessageId)) await this.catchUp();
  }

  /** Show a message as one that is saved; sent twice (with one key), it is there already. */
  arrived(sending, id, { sessionId }) {
    this.session ??= { session_id: sessionId, character_id: this.account.character, title: titleOf(sending.text) };
    if (this.find(id)) return sending.remove();
    sending.id = id;
    sending.end({ status: "complete", created_at: new Date().toISOString() });
    this.shown.push(sending);
    this.tell("change");
  }

  /** Return the message of a turn's answer, as long as the turn runs. */
  answer(id) {
    const shown = this.find(id);
    if (shown) {
      shown.restart();
      return shown;
    }
    const answer = this.make({ id, role: "assistant", content: "", status: "streaming" });
    this.shown.push(answer);
    this.messages.append(answer.element);
    return answer;
  }

  async tryAgain() {
    const last = this.shown.findLast(({ role }) => role === "user");
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
