/** The messages that are shown, oldest first, each once. */

import { Message } from "./message.js";

export class MessageList {
  /**
   * @param {HTMLElement} element holds the messages and nothing else
   * @param {() => void} tryAgain
   */
  constructor(element, tryAgain) {
    Object.assign(this, { element, tryAgain, shown: [] });
  }

  clear() {
    this.shown = [];
    this.element.replaceChildren();
  }

  get last() {
    return this.shown.at(-1);
  }

  /** Return the id of the last message that the history has. */
  get lastSaved() {
    return this.shown.findLast(({ id, status }) => id && status !== "error" && status !== "streaming")?.id;
  }

  find(id) {
    return this.shown.find((message) => message.id === id);
  }

  make(fields) {
    return new Message(fields, this.tryAgain);
  }

  /** Show messages of the history after those that are shown, or before them; one that is shown already stays. */
  put(messages, earlier = false) {
    const unseen = messages.filter(({ id }) => !this.find(id)).map((fields) => this.make(fields));
    const elements = unseen.map(({ element }) => element);
    this.shown = earlier ? [...unseen, ...this.shown] : [...this.shown, ...unseen];
    if (earlier) this.element.prepend(...elements);
    else this.element.append(...elements);
  }

  /** Show a message that is on its way, last; it counts as shown once it has arrived. */
  send(text) {
    const sending = this.make({ role: "user", content: text, status: "sending" });
    this.element.append(sending.element);
    return sending;
  }

  /** Give a message that has arrived its id; sent twice (with one key), it may be there already. */
  arrived(sending, id) {
    if (this.find(id)) return sending.remove();
    sending.id = id;
    sending.end({ status: "complete", created_at: new Date().toISOString() });
    this.shown.push(sending);
  }

  /** Return the message of an answer that is being written. */
  answer(id) {
    const shown = this.find(id);
    if (shown) {
      shown.restart();
      return shown;
    }
    const answer = this.make({ id, role: "assistant", content: "", status: "streaming" });
    this.shown.push(answer);
    this.element.append(answer.element);
    return answer;
  }

  drop(message) {
    message.remove();
    this.shown = this.shown.filter((other) => other !== message);
  }
}
