/** The field a message is written in: its drafts, its keys, its limit. */

import { newKey } from "./client/chatd-client.js";
import { find, formatNumber, part, show } from "./dom.js";
import { joined } from "./drafts.js";

const LIMIT = 10_000; // characters, as chatd counts them
const TOLD_FROM = 9_000;
const NOTHING = { text: "", key: null };

export class Composer extends EventTarget {
  /** Dispatches `send` and `stop`. */
  constructor(root, drafts) {
    super();
    this.drafts = drafts;
    this.form = root.querySelector("form");
    this.field = find("composer", root);
    this.send = find("send", root);
    this.stop = find("stop", root);
    this.count = part("count", root);
    this.problem = part("problem", root);
    this.ready = false;
    this.given = NOTHING; // the draft that was put into the field
    this.kept = ""; // what the draft has of the field
    this.touch = matchMedia("(pointer: coarse)"); // whose keyboards have no Shift+Enter
    this.field.addEventListener("input", () => this.changed());
    this.field.addEventListener("keydown", (event) => this.press(event));
    this.form.addEventListener("submit", (event) => this.submit(event));
    this.stop.addEventListener("click", () => this.dispatchEvent(new Event("stop")));
  }

  /** Keep what is written for a session from now on, and show what was kept for it. */
  open(sessionId) {
    const early = this.sessionId === undefined ? this.field.value : ""; // written while the page was opening
    this.sessionId = sessionId;
    this.tell("");
    this.given = this.drafts.read(sessionId);
    this.kept = this.given.text;
    this.write(this.kept);
    if (early.trim()) this.add(early);
  }

  /** Take what is written along to the session that its first message has made. */
  moveTo(sessionId) {
    this.drafts.replace(this.sessionId, this.kept, "");
    Object.assign(this, { sessionId, given: NOTHING, kept: "" });
    this.keep();
  }

  /** Take what is written out of the field; it is a draft no longer. */
  takeOut() {
    const { value } = this.field;
    this.given = NOTHING;
    this.write("");
    this.keep();
    return value;
  }

  /** Put a text before what is written. */
  add(text, key = null) {
    const [all, kept] = joined(text, key, this.field.value);
    this.given = { text: all, key: kept };
    this.write(all);
    this.keep();
  }

  /** Show whether a message may be sent, and whether an answer is being written, which can be stopped. */
  setState({ ready, busy }) {
    const focused = [this.send, this.stop].includes(document.activeElement);
    this.ready = ready;
    this.send.hidden = busy;
    this.stop.hidden = !busy;
    this.measure();
    if (focused) this.field.focus();
  }

  tell(problem) {
    show(this.problem, problem);
  }

  write(text) {
    this.field.value = text;
    this.measure();
  }

  /** Return the idempotency key of what is written, where that was sent before as it is now. */
  get key() {
    return this.field.value === this.given.text ? this.given.key : null;
  }

  /** Keep what is written. */
  keep() {
    const { value } = this.field;
    this.drafts.replace(this.sessionId, this.kept, value, this.key);
    this.kept = value;
  }

  changed() {
    if (this.sessionId !== undefined) this.keep();
    this.tell("");
    this.measure();
  }

  measure() {
    const length = [...this.field.value].length;
    this.send.disabled = !this.ready || !this.field.value.trim() || length > LIMIT;
    show(this.count, length > TOLD_FROM ? `${formatNumber(length)} of ${formatNumber(LIMIT)} characters` : "");
    this.count.toggleAttribute("data-over", length > LIMIT);
    if (!CSS.supports("field-sizing", "content")) this.grow();
  }

  grow() {
    this.field.style.blockSize = "auto";
    this.field.style.blockSize = `${this.field.scrollHeight}px`;
  }

  press(event) {
    if (event.key !== "Enter" || event.shiftKey || event.altKey || event.isComposing) return;
    if (this.touch.matches && !event.ctrlKey && !event.metaKey) return;
    this.submit(event);
  }

  submit(event) {
    event.preventDefault();
    if (this.send.disabled || this.send.hidden) return;
    const key = this.key ?? newKey();
    this.dispatchEvent(new CustomEvent("send", { detail: { text: this.takeOut(), key } }));
  }
}
