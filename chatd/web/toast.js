/** A short notice with a way back: what it tells of is done when the time for that is over. */

import { find, part } from "./dom.js";

const SECONDS = 8;

export class Toast {
  constructor(element) {
    this.element = element;
    this.pending = null;
    this.status = part("toast-status"); // is always there: what appears together with its text is not read out
    find("undo", element).addEventListener("click", () => this.undo());
    addEventListener("pagehide", () => this.close());
  }

  /**
   * Show a notice; one that still stands is closed.
   * @param {string} text
   * @param {{ done: () => void, undone: () => void }} then
   */
  show(text, then) {
    this.close();
    this.pending = then;
    this.element.hidden = false;
    this.status.textContent = part("toast-text", this.element).textContent = text;
    this.timer = setTimeout(() => this.expire(), SECONDS * 1000);
  }

  /** Wait on while the button has the focus: somebody is about to press it. */
  expire() {
    if (this.element.contains(document.activeElement)) this.timer = setTimeout(() => this.expire(), SECONDS * 1000);
    else this.close();
  }

  close() {
    this.settle()?.done();
  }

  undo() {
    this.settle()?.undone();
  }

  settle() {
    const pending = this.pending;
    clearTimeout(this.timer);
    this.pending = null;
    this.element.hidden = true;
    return pending;
  }
}
