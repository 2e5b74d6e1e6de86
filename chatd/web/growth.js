/** What grows on the screen by appending to a text node, without being parsed: an open fence's code, a long block. */

import { createCodeBlock } from "./code-block.js";
import { createPlain } from "./markdown.js";

const MAX_OPEN = 16_000;
const PART_UNTIL_NEXT_RENDERING = 0.25;

const FENCE = /^( {0,3})(`{3,}(?=[^`\n]*\n)|~{3,})([^\n]*)\n/;
const MAYBE_CLOSING = /^ {0,3}[~`]{0,99} {0,9}$/;
const NEW_BLOCK = /\n[ \t]*\n(?![-*+]|\d{1,9}[.)])\S/;

/**
 * Let the fenced code that begins at an offset grow.
 * @param {string} text
 * @param {number} from
 * @returns {GrowingCode|null} null where there is no open fence
 */
export function growCode(text, from) {
  const match = FENCE.exec(text.slice(from));
  if (!match) return null;
  const growth = new GrowingCode(match, from + match[0].length);
  return growth.hasEnded(text) ? null : growth;
}

/**
 * Let a long block grow as plain text.
 * @param {number} from where in the text the plain part begins
 * @param {number} openLength of the block so far; Infinity: it is never parsed again
 * @returns {GrowingPlain|null} null where the block is short
 */
export function growPlain(from, openLength) {
  return openLength > MAX_OPEN ? new GrowingPlain(from, openLength * PART_UNTIL_NEXT_RENDERING) : null;
}

/** Tell whether a source begins with fenced code and has its end, too. */
export function isClosedFence(source) {
  const match = FENCE.exec(source);
  return match !== null && new GrowingCode(match, match[0].length).hasEnded(source);
}

const lineStart = (text, offset) => text.lastIndexOf("\n", offset - 1) + 1;

class GrowingCode {
  #node = document.createTextNode("");
  #shown;
  #closing;

  constructor([, , fence, info], from) {
    this.element = createCodeBlock("", info.trim().split(/\s/, 1)[0]);
    this.element.querySelector("code").replaceChildren(this.#node);
    this.#shown = from;
    this.#closing = new RegExp(`^ {0,3}${fence}[~\`]* *\\n`, "m");
  }

  /** Tell whether the fence is closed in this text. */
  hasEnded(text) {
    return this.#closing.test(text.slice(lineStart(text, this.#shown)));
  }

  /** Show the text's code so far, but for a last line that may be the fence's end. */
  show(text) {
    const line = lineStart(text, text.length);
    const end = MAYBE_CLOSING.test(text.slice(line)) ? Math.max(line, this.#shown) : text.length;
    this.#node.appendData(text.slice(this.#shown, end));
    this.#shown = end;
  }
}

class GrowingPlain {
  #node = document.createTextNode("");
  #from;
  #shown;
  #most;

  constructor(from, most) {
    this.element = createPlain("");
    this.element.append(this.#node);
    this.#from = this.#shown = from;
    this.#most = most;
  }

  /** Tell whether the text is to be parsed again: another block has begun, or much was added. */
  hasEnded(text) {
    const length = text.length - this.#from;
    return length > this.#most || (this.#most < Infinity && NEW_BLOCK.test(text.slice(this.#from)));
  }

  /** Show all of the text. */
  show(text) {
    this.#node.appendData(text.slice(this.#shown));
    this.#shown = text.length;
  }
}
