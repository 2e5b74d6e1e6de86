/** The open session: its messages, page by page, and the turn that runs in it, wherever it was begun. */

import { newKey } from "./client/chatd-client.js";
import { isGone, isUnreachable } from "./connection.js";
import { Delivery } from "./delivery.js";
import { MessageList } from "./message-list.js";
import { OlderMessages } from "./older-messages.js";
import { TurnView } from "./turn-view.js";

const PAGE = 50; // messages

export class Conversation extends EventTarget {
  /**
   * Dispatches `change` (title, state), `sent` and `unsent` (a message got through, or not) and `missing`.
   * @param {object} parts account, connection, outbox, announcer, scrolling; the elements messages, older, empty
   */
  constructor(parts) {
    super();
    Object.assign(this, parts);
    this.messages = new MessageList(parts.messages, () => this.tryAgain());
    this.delivery = new Delivery(this, parts.outbox);
    this.older = new OlderMessages(this, parts.older);
    this.reads = 0; // of what came after the last message: what an earlier one says of the state is overtaken
    this.clear(null);
  }

  get client() {
    return this.account.client;
  }

  get sessionId() {
    return this.session?.session_id ?? null;
  }

  /** Whether it is known where a message would go. */
  get ready() {
    return this.sessionId === this.wanted;
  }

  get busy() {
    return this.turn !== null;
  }

  tell(type, detail = null) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  clear(wanted) {
    this.life?.abort();
    this.turn?.leave();
    this.life = new AbortController();
    Object.assign(this, { wanted, session: null, turn: null });
    this.messages.clear();
    this.older.set(null);
    this.announcer.clear();
  }

  /** Show a session, or none: the next message then makes one. Raises what keeps it from being loaded. */
  async open(sessionId) {
    this.clear(sessionId);
    this.empty.hidden = sessionId !== null;
    this.tell("change");
    if (sessionId === null) this.delivery.resume();
    else await this.load(this.life);
  }

  async load(life) {
    this.loading = life;
    try {
      this.take(await this.unlessGone(() => this.read(life.signal), life), life);
    } finally {
      if (this.loading === life) this.loading = null;
    }
  }

  take(loaded, life) {
    if (!loaded || life !== this.life) return;
    const [session, page] = loaded;
    this.session = session;
    this.messages.put(page.messages);
    this.older.set(page.before);
    this.scrolling.toEnd();
    this.tell("change");
    if (!this.delivery.resume()) this.note(page);
  }

  async read(signal) {
    const id = this.wanted;
    const both = () => Promise.all([this.client.getSession(id, { signal }), this.client.getChatHistory(id, { limit: PAGE, signal })]);
    return this.connection.persist(() => this.account.insist(both), signal);
  }

  /** Ask for something of the open session; return nothing where it is another one meanwhile, or is gone, which is told. */
  async unlessGone(request, life = this.life) {
    try {
      return await request();
    } catch (error) {
      if (life !== this.life) return undefined;
      if (!isGone(error)) throw error;
      this.delivery.giveBackLeft(error);
      this.tell("missing");
    }
  }

  /** Ask like that, but leave it to the next time where chatd can't be reached now. */
  async try(request) {
    try {
      await this.unlessGone(() => request(this.life));
    } catch (error) {
      if (!isUnreachable(error)) throw error;
    }
  }

  /** Take note of a session's state: attach to a turn that runs, offer another try after one that failed. */
  note({ status, message_count: count }) {
    Object.assign(this, { status, count });
    if (isRunning(status)) this.attach();
    else if (status === "error") this.messages.last?.fail("The last answer could not be completed.");
  }

  history(query) {
    const { sessionId } = this;
    const page = { limit: PAGE, signal: this.life.signal, ...query };
    return this.connection.watch(() => this.account.insist(() => this.client.getChatHistory(sessionId, page)));
  }

  /** Look whether something happened elsewhere, and show it; load what could not be loaded before. */
  async poll() {
    if (this.busy || this.wanted === null) return;
    if (this.session) await this.try((life) => this.look(life));
    else if (this.loading !== this.life) await this.load(this.life);
  }

  async look(life) {
    const { sessionId } = this;
    const session = await this.connection.watch(() => this.account.insist(() => this.client.getSession(sessionId)));
    if (life !== this.life || this.busy) return;
    const renamed = session.title !== this.session.title;
    this.session = session;
    const isNews = session.message_count !== this.count || session.status !== this.status;
    if (isNews || isRunning(session.status)) await this.catchUp();
    if (renamed) this.tell("change");
  }

  /** Load what came after the last message that is known to be saved, and attach where a turn runs. */
  async catchUp() {
    const { life } = this;
    const read = ++this.reads;
    let after = this.messages.lastSaved;
    let page;
    do {
      page = await this.history({ after });
      if (life !== this.life) return;
      this.messages.put(page.messages.filter(({ id }) => id !== this.turn?.answer?.id)); // that is read to its end
      after = page.messages.at(-1)?.id;
    } while (page.messages.length === PAGE);
    if (!this.busy && read === this.reads) this.note(page);
  }

  /** Send a message; it begins a turn, which is shown as it goes. */
  async send(text, key = newKey(), character = this.session?.character_id ?? this.account.character) {
    const { client, sessionId } = this;
    const request = { sessionId, characterId: character, idempotencyKey: key };
    const connect = (before, signal) =>
      before?.lastEventId ? this.goOn(before, signal) : client.streamChatResponse(text, { ...request, signal });
    const message = this.messages.make({ role: "user", content: text, status: "sending" });
    const turn = new TurnView(this, connect, { message, text, key, character });
    this.outbox.put(turn);
    this.show(turn);
    await this.run(turn);
  }

  /** Show a message that is on its way, and the turn that it begins. */
  show(turn) {
    this.turn = turn;
    this.empty.hidden = true;
    this.messages.send(turn.sending.message);
    this.scrolling.toEnd();
    this.tell("change");
  }

  attach() {
    const { client, sessionId } = this;
    const connect = (before, signal) => (before?.lastEventId ? this.goOn(before, signal) : client.attach(sessionId, { signal }));
    this.turn = new TurnView(this, connect);
    this.tell("change");
    return this.run(this.turn);
  }

  goOn({ sessionId, messageId, lastEventId, text }, signal) {
    return this.client.attach(sessionId, { messageId, lastEventId, text, signal });
  }

  async run(turn) {
    const { life } = this;
    const failure = await turn.watch();
    if (!turn.delivered) this.delivery.giveBack(turn, failure);
    if (this.turn !== turn) return;
    this.turn = null;
    if (failure && turn.started) turn.answer.fail(failure.detail ?? "The answer could not be read on.");
    this.tell("change");
    if (isGone(failure) && turn.sending) this.tell("missing");
    else if (!failure && this.session && (turn.started || turn.sending)) await this.try(() => this.catchUp());
    if (!failure && !this.busy && this.life === life) this.delivery.resume();
    if (failure && turn.delivered && !turn.started && !isGone(failure)) this.leaveToPoll(turn, failure);
  }

  /** Tell that a turn can't be read, which has its message: what is shown of that goes, until the history has it. */
  leaveToPoll({ sending }, failure) {
    if (sending && !sending.message.id) sending.message.remove();
    throw failure;
  }

  /** A turn has started: it has a session now, and the message that began it an id. Return whether it is shown here. */
  async began(turn, userMessageId) {
    const here = this.turn === turn;
    if (!turn.delivered) this.delivery.arrived(turn, here);
    if (!here) return false;
    this.messages.last?.forgive();
    if (turn.origin !== null && !this.messages.byId.has(userMessageId)) await this.readBefore(turn);
    if (this.turn !== turn) return false;
    if (turn.sending) this.messages.arrived(turn.sending.message, userMessageId);
    return true;
  }

  /** Show what came before a turn's own messages: once these are shown, nothing before them is asked for any more. */
  async readBefore(turn) {
    await this.unlessGone(() => this.connection.persist(() => this.catchUp(), turn.life.signal));
  }

  /** Take over the session that the first message has made. */
  adopt(session) {
    this.session = session;
    this.wanted = session.session_id;
  }

  async tryAgain() {
    const { lastQuestion } = this.messages;
    if (lastQuestion && this.ready && !this.busy) await this.send(lastQuestion);
  }
}

const isRunning = (status) => status === "thinking" || status === "executing";
