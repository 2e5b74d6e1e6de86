/** Markdown that grows: what is finished is rendered once, only the block still open is rendered anew. */

import { isBeyondBounds, parseBlocks, withPlainLineEnds } from "./blocks.js";
import { growCode, growPlain, isClosedFence } from "./growth.js";
import { renderMarkdown, renderTokens } from "./markdown.js";
import { UpdateTimer } from "./update-timer.js";

// As long as the last line is only this, it would flash up as a heading, an empty item or a stray mark.
const MARKUP_SO_FAR = /^(?:[-=*+#>|:~`_ \t]{1,99}|[ \t]{0,99}(?:\d{1,9}[.)]|(?:`{3,}|~{3,})[^`\s]{0,30}) ?)$/;
// A shorter beginning of a line may still turn out to go on with the block before it.
const DECIDED_LENGTH = 12;

export class StreamingMarkdown {
  #element;
  #onUpdate;
  #timer = new UpdateTimer(() => this.#update());
  #text = "";
  #carriageReturn = "";
  #openAt = 0;
  #openChild = 0;
  #links = {};
  #growth = null;

  /**
   * Show a growing text in an element, which is emptied.
   * @param {HTMLElement} element
   * @param {{onUpdate?: () => void}} [options] onUpdate is called after each change of the element
   */
  constructor(element, { onUpdate = () => {} } = {}) {
    this.#element = element;
    this.#onUpdate = onUpdate;
    element.replaceChildren();
  }

  /** Add a piece; it is shown with the next update. */
  append(text) {
    this.#add(text);
    this.#timer.schedule();
  }

  /** Forget the text so far and show this one. */
  reset(text = "") {
    this.#text = this.#carriageReturn = "";
    this.#openAt = this.#openChild = 0;
    this.#links = {};
    this.#growth = null;
    this.#element.replaceChildren();
    this.#add(text);
    this.#timer.cancel();
    this.#update();
  }

  /** Show the whole text as `renderMarkdown` does; without a text, what was appended. */
  finish(text = this.#text + this.#carriageReturn) {
    this.#timer.cancel();
    this.#show(0, [...renderMarkdown(text).children]);
    this.#onUpdate();
  }

  // A CR at the end is kept back: it may be the first half of a CRLF.
  #add(text) {
    const added = this.#carriageReturn + text;
    this.#carriageReturn = added.endsWith("\r") ? "\r" : "";
    this.#text += withPlainLineEnds(this.#carriageReturn ? added.slice(0, -1) : added);
  }

  #update() {
    if (this.#growth && !this.#growth.hasEnded(this.#text)) this.#growth.show(this.#text);
    else this.#renderOpen();
    this.#onUpdate();
  }

  #renderOpen() {
    this.#growth = null;
    if (isBeyondBounds(this.#text)) return this.#grow(growPlain(this.#openAt, Infinity), this.#openChild);
    const source = withoutMarkupSoFar(this.#text.slice(this.#openAt));
    const open = this.#commit(parseBlocks(source, this.#links), source);
    const code = growCode(this.#text, this.#openAt);
    if (code) return this.#grow(code, this.#openChild);
    const long = growPlain(this.#openAt + source.length, open.length);
    return long && this.#grow(long, this.#element.childElementCount);
  }

  /** Show tokens, and leave those alone from now on that more text can't change; return the source of the others. */
  #commit(tokens, source) {
    const finished = tokens.slice(0, openIndex(tokens));
    const open = tokens.slice(finished.length);
    const fragment = renderTokens(finished);
    const count = fragment.childElementCount;
    fragment.append(renderTokens(open));
    this.#show(this.#openChild, [...fragment.children]);
    const openSource = open.map(({ raw }) => raw).join("");
    // marked leaves out what defines a reference anew, so the sources may not add up.
    if (!source.endsWith(openSource)) return source;
    this.#openAt += source.length - openSource.length;
    this.#openChild += count;
    this.#define(finished);
    return openSource;
  }

  #define(tokens) {
    for (const { type, tag, href, title } of tokens) if (type === "def") this.#links[tag] ??= { href, title };
  }

  #grow(growth, child) {
    this.#growth = growth;
    growth.show(this.#text);
    this.#removeFrom(child);
    this.#element.append(growth.element);
  }

  /** Put elements in place of the element's children from one on; those that are equal stay. */
  #show(from, children) {
    const standing = this.#element.children;
    let equal = 0;
    while (equal < children.length && standing[from + equal]?.isEqualNode(children[equal])) equal += 1;
    this.#removeFrom(from + equal);
    this.#element.append(...children.slice(equal));
  }

  #removeFrom(child) {
    while (this.#element.childElementCount > child) this.#element.lastElementChild.remove();
  }
}

function withoutMarkupSoFar(source) {
  const line = source.lastIndexOf("\n") + 1;
  return MARKUP_SO_FAR.test(source.slice(line)) ? source.slice(0, line) : source;
}

/** The index of the first token that more text may change. */
function openIndex(tokens) {
  const last = lastBlock(tokens, tokens.length);
  if (last < 0 || isClosedFence(tokens[last].raw)) return tokens.length;
  const isDecided = tokens[last].raw.includes("\n") || tokens[last].raw.length >= DECIDED_LENGTH;
  return isDecided ? last : Math.max(0, lastBlock(tokens, last));
}

function lastBlock(tokens, before) {
  return tokens.slice(0, before).findLastIndex(({ type }) => type !== "space");
}
