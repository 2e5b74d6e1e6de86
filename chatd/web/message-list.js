/** The messages that are shown, oldest first, each once. */

import { Message } from "./message.js";

export class MessageList {
  /**
   * @param {HTMLElement} element holds the messages and nothing else
   * @param {() => void} tryAgain
   */
  constructor(element, tryAgain) {
    Object.assign(this, { element, tryAgain, shown: [], byId: new Map() });
  }

  clear() {
    for (const message of this.shown) message.clearNotice();
    this.shown = [];
    this.byId.clear();
    this.element.replaceChildren();
  }

  get last() {
    return this.shown.at(-1);
  }

  /** Return the id of the last message that the history is known to have. */
  get lastSaved() {
    return this.shown.findLast(({ isSaved }) => isSaved)?.id;
  }

  get lastQuestion() {
    return this.shown.findLast(({ role }) => role === "user")?.text;
  }

  make(fields) {
    return new Message(fields, this.tryAgain);
  }

  /** Show messages of the history after those that are shown, or before them; an answer that was cut is completed. */
  put(messages, earlier = false) {
    for (const fields of messages) this.byId.get(fields.id)?.complete(fields);
    const unseen = messages.filter(({ id }) => !this.byId.has(id)).map((fields) => this.make(fields));
    for (const message of unseen) this.byId.set(message.id, message);
    if (unseen.length && !earlier) this.last?.forgive(); // somebody has gone on, here or elsewhere
    this.shown = earlier ? [...unseen, ...this.shown] : [...this.shown, ...unseen];
    const elements = unseen.map(({ element }) => element);
    if (earlier) this.element.prepend(...elements);
    else this.element.append(...elements);
  }

  add(message) {
    this.shown.push(message);
    this.byId.set(message.id, message);
    this.element.append(message.element);
  }

  /** Show a message that is on its way, last; it counts as shown once it has arrived. */
  send(message) {
    this.element.append(message.element);
  }

  /** Give a message that has arrived its id; sent twice (with one key), it may be there already. */
  arrived(message, id) {
    if (this.byId.has(id)) return message.remove();
    message.id = id;
    message.end({ status: "complete", created_at: new Date().toISOString() });
    this.add(message);
  }

  /** Return the message of an answer that is being written. */
  answer(id) {
    const shown = this.byId.get(id);
    shown?.restart();
    if (shown) return shown;
    const answer = this.make({ id, role: "assistant", content: "", status: "streaming" });
    this.add(answer);
    return answer;
  }

  drop(message) {
    message.remove();
    this.byId.delete(message.id);
    this.shown = this.shown.filter((other) => other !== message);
  }
}
