/** The field a message is written in: its drafts, its keys, its limit. */

import { find, formatNumber, part, show } from "./dom.js";
import { browser } from "./storage.js";

const LIMIT = 10_000; // characters, as chatd counts them
const TOLD_FROM = 9_000;

export class Composer extends EventTarget {
  /** Dispatches `send` and `stop`. */
  constructor(root) {
    super();
    this.form = root.querySelector("form");
    this.field = find("composer", root);
    this.send = find("send", root);
    this.stop = find("stop", root);
    this.count = part("count", root);
    this.problem = part("problem", root);
    this.field.addEventListener("input", () => this.changed());
    this.field.addEventListener("keydown", (event) => this.press(event));
    this.form.addEventListener("submit", (event) => this.submit(event));
    this.stop.addEventListener("click", () => this.dispatchEvent(new Event("stop")));
  }

  /** Keep what is written under a name from now on, and show what was kept under it. */
  open(key) {
    this.key = key;
    this.tell("");
    this.write(readDraft(key).text);
  }

  /** Show whether an answer is being written: then it can be stopped, and nothing else be sent. */
  set busy(busy) {
    const focused = [this.send, this.stop].includes(document.activeElement);
    this.send.hidden = busy;
    this.stop.hidden = !busy;
    if (focused) this.field.focus();
  }

  get busy() {
    return this.send.hidden;
  }

  tell(problem) {
    show(this.problem, problem);
  }

  write(text) {
    this.field.value = text;
    this.measure();
  }

  changed() {
    keepDraft(this.key, this.field.value);
    this.tell("");
    this.measure();
  }

  measure() {
    const length = [...this.field.value].length;
    this.send.disabled = !this.field.value.trim() || length > LIMIT;
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
    this.submit(event);
  }

  submit(event) {
    event.preventDefault();
    if (this.send.disabled || this.busy) return;
    const { text, key } = readDraft(this.key);
    this.dispatchEvent(new CustomEvent("send", { detail: { text: this.field.value, key: key && text === this.field.value ? key : newKey() } }));
  }
}

/** Return the draft that was kept under a name, and the idempotency key with which it was sent, if it was. */
export function readDraft(name) {
  try {
    const { text, key } = JSON.parse(browser.get(name) ?? "{}");
    return { text: String(text ?? ""), key: key ? String(key) : null };
  } catch {
    return { text: "", key: null };
  }
}

/** Keep a draft, with the key under which it is sent: sent again after a reload, it is the same message. */
export function keepDraft(name, text, key = null) {
  browser.set(name, text && JSON.stringify({ text, key }));
}

const newKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
