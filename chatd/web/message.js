/** One message as it is shown: written, growing, ended, failed. */

import { find, formatNumber, fromTemplate, part, show, showTime } from "./dom.js";
import { renderMarkdown } from "./markdown.js";
import { StreamingMarkdown } from "./streaming.js";

const AUTHORS = { user: "You", assistant: "Answer", system: "Instructions" };
const OUTCOMES = { stopped: "Stopped", interrupted: "Interrupted: not complete" };
const COPIED = 2000; // milliseconds

const REASONS = {
  upstream_overloaded: "The model is overloaded.",
  upstream_rate_limited: "The model takes no more requests just now.",
  upstream_unavailable: "The model had a failure.",
  upstream_unreachable: "The model can't be reached.",
  upstream_cut: "The answer was cut off.",
  upstream_stalled: "The model fell silent.",
};

export class Message {
  /**
   * @param {object} fields a message object of the API; `status` may also be `sending`, `streaming` or `error`
   * @param {(message: Message) => void} tryAgain
   */
  constructor(fields, tryAgain) {
    this.element = fromTemplate("message-template");
    this.body = this.element.querySelector(".message-body");
    this.foot = this.element.querySelector(".message-foot");
    this.role = this.element.dataset.role = fields.role;
    this.element.querySelector("h2").textContent = AUTHORS[fields.role];
    find("try-again", this.element).addEventListener("click", () => tryAgain(this));
    this.enableCopying(find("copy-message", this.element));
    this.id = fields.id;
    this.status = fields.status;
    this.text = fields.content;
    if (fields.status === "streaming") this.markdown = new StreamingMarkdown(this.body);
    else this.end(fields);
  }

  /** Whether the history has it, as it is shown. */
  get isSaved() {
    return Boolean(this.id) && !["sending", "streaming", "error"].includes(this.status);
  }

  get id() {
    return this.element.dataset.messageId;
  }

  set id(id) {
    if (id) this.element.dataset.messageId = id;
  }

  get status() {
    return this.element.dataset.status;
  }

  set status(status) {
    this.element.dataset.status = status;
    this.element.setAttribute("aria-busy", String(status === "streaming"));
  }

  /** Show the message from its beginning, as it is written. */
  restart() {
    this.markdown ??= new StreamingMarkdown(this.body);
    this.status = "streaming";
    this.element.classList.remove("settled");
    this.foot.hidden = true;
    this.forgive();
    this.reset("");
  }

  /** Take over what was saved, where the message was not read to its end. */
  complete(fields) {
    if (this.isSaved) return;
    this.text = fields.content;
    this.forgive();
    this.end(fields);
  }

  append(text) {
    this.text += text;
    this.markdown.append(text);
    this.clearNotice();
  }

  reset(text) {
    this.text = text;
    this.markdown.reset(text);
    this.clearNotice();
  }

  /** Show the message whole, with when it was written, how it ended and what it took. */
  end({ status, created_at: createdAt, token_usage: usage, stop_reason: reason }) {
    this.clearNotice();
    this.status = status;
    this.render();
    if (status === "sending") return;
    afterLayout(() => this.element.classList.add("settled"));
    this.foot.hidden = false;
    find("copy-message", this.foot).hidden = !navigator.clipboard || !this.text;
    if (createdAt) showTime(find("time", this.foot), createdAt);
    show(part("outcome", this.foot), OUTCOMES[status] ?? (reason === "max_tokens" ? "Ended at the limit of its length" : ""));
    this.showUsage(find("token-usage", this.foot), usage);
  }

  render() {
    if (this.markdown) this.markdown.finish(this.text);
    else if (this.role === "assistant") this.body.replaceChildren(renderMarkdown(this.text));
    else this.body.textContent = this.text;
  }

  showUsage(element, usage) {
    if (!usage) return;
    const read = usage.input_tokens + (usage.cache_read_input_tokens ?? 0) + (usage.cache_creation_input_tokens ?? 0);
    const parts = [[read, "in"], [usage.output_tokens, "out"]].filter(([count]) => Number.isFinite(count));
    show(element, parts.length ? `Tokens: ${parts.map(([count, way]) => `${formatNumber(count)} ${way}`).join(", ")}` : "");
  }

  /** Tell that another attempt is about to be made; the seconds are counted down. */
  retry({ attempt, max_attempts: attempts, delay, reason }) {
    this.clearNotice();
    const until = performance.now() + delay * 1000;
    const tell = () => {
      const seconds = Math.ceil((until - performance.now()) / 1000);
      const wait = seconds > 0 ? `waiting ${seconds} s` : "asking again";
      show(find("retry-notice", this.element), `${REASONS[reason] ?? "The model did not answer."} Attempt ${attempt} of ${attempts}, ${wait}.`);
    };
    tell();
    this.counting = setInterval(tell, 500);
  }

  clearNotice() {
    if (this.counting) clearInterval(this.counting);
    this.counting = null;
    find("retry-notice", this.element).hidden = true;
  }

  /** Tell that the turn has failed, and offer to try again. */
  fail(error) {
    this.clearNotice();
    if (!find("error-notice", this.element).hidden) return;
    show(part("error-text", this.element), error);
    find("error-notice", this.element).hidden = false;
  }

  forgive() {
    find("error-notice", this.element).hidden = true;
  }

  enableCopying(button) {
    const label = button.getAttribute("aria-label");
    const tell = (outcome, copied) => {
      button.setAttribute("aria-label", outcome);
      button.toggleAttribute("data-copied", copied);
    };
    button.addEventListener("click", async () => {
      const copied = await navigator.clipboard.writeText(this.text).then(() => true, () => false);
      tell(copied ? "Copied" : "Copying is not allowed here", copied);
      setTimeout(() => tell(label, false), COPIED);
    });
  }

  remove() {
    this.clearNotice();
    this.element.remove();
  }
}

/** Call back when what was shown has its size: only then may the browser skip it while it is out of view. */
function afterLayout(callback) {
  requestAnimationFrame(() => requestAnimationFrame(callback));
}
