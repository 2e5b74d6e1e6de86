/** Reads an answer out to screen readers: whole sentences, not pieces, at most once a second. */

const INTERVAL = 1000; // milliseconds
const LONGEST = 600; // characters without an end of a sentence, after which what is there is told
const KEPT = 8; // paragraphs that stay in the region
const MARKUP = /^[ \t]*(?:#{1,6}|>|[-*+])[ \t]+|[`*]+|~~+/gm;

const sentences = Intl.Segmenter ? new Intl.Segmenter(undefined, { granularity: "sentence" }) : null;

export class Announcer {
  constructor(region) {
    this.region = region;
    this.clear();
  }

  /** Take in a piece of an answer. */
  add(text) {
    this.text += text;
    this.timer ||= setTimeout(() => this.tell(false), INTERVAL);
  }

  /** Tell what is left of the answer, and how it ended. */
  end(outcome) {
    this.tell(true);
    this.say(outcome);
  }

  clear() {
    clearTimeout(this.timer);
    this.timer = 0;
    this.text = "";
    this.region.replaceChildren();
  }

  tell(ended) {
    clearTimeout(this.timer);
    this.timer = 0;
    const length = ended ? this.text.length : finished(this.text);
    this.say(this.text.slice(0, length));
    this.text = this.text.slice(length);
  }

  say(text) {
    const words = text.replace(MARKUP, "").trim();
    if (!words) return;
    const paragraph = document.createElement("p");
    paragraph.textContent = words;
    this.region.append(paragraph);
    while (this.region.childElementCount > KEPT) this.region.firstElementChild.remove();
  }
}

/** Return how much of a text, in characters, is finished sentences. */
function finished(text) {
  const last = sentences ? [...sentences.segment(text)].at(-1).index : text.lastIndexOf("\n") + 1;
  return text.length - last > LONGEST ? text.length : last;
}
