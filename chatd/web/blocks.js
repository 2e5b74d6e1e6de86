/** Markdown as marked's tokens, within bounds that no text can make slow. */

import { Lexer, Marked } from "./vendor/marked.esm.js";

/** Longer texts are shown as they are (UTF-16 units). */
const MAX_TEXT = 200_000;
const MAX_QUOTED_LINES = 4_000;
const MAX_TAGS = 30_000;
const MAX_INLINE = 64_000;
const MAX_DELIMITERS = 1_000;
const MAX_TABLE_CELLS = 20_000;

// marked recurses for each level of quotes and lists, so what nests deeper than any reader follows is shown as it is.
const TOO_DEEP = /^(?:(?:[ \t]*(?:>|[-+*](?=[ \t])|\d{1,9}[.)](?=[ \t]))){40}|[ \t]{40,}(?:[-+*]|\d{1,9}[.)])[ \t])/m;
const QUOTED_LINE = /^[ \t]*>/gm;
const TAGS = /</g;
const DELIMITERS = /[*_~[]/g;
const LINE_BREAK_TAG = /^<br\s*\/?>$/i;

const marked = new Marked({
  gfm: true,
  breaks: true,
  tokenizer: {
    /** HTML is text like any other: it is escaped where it is rendered. */
    html: () => undefined,
    tag(source) {
      const [tag] = /^<[^>\n]{0,8}>/.exec(source) ?? [""];
      return LINE_BREAK_TAG.test(tag) ? { type: "br", raw: tag } : undefined;
    },
    /** A row may leave out cells, so a wide head makes a small text an enormous table. */
    table(source) {
      const match = this.rules.block.table.exec(source);
      return match && cells(match) > MAX_TABLE_CELLS ? undefined : false;
    },
  },
  renderer: {
    heading({ tokens, depth }) {
      const level = Math.min(depth + 2, 6);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
    image({ href, text }) {
      return `<a href="${escape(href)}">${escape(text || href)}</a>`;
    },
    link({ href, title, tokens }) {
      const { parser } = this;
      const withImage = tokens.some(({ type }) => type === "image");
      const text = withImage ? parser.parseInline(tokens, parser.textRenderer) : parser.parseInline(tokens);
      return `<a href="${escape(href)}"${title ? ` title="${escape(title)}"` : ""}>${text}</a>`;
    },
  },
});

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escape = (text) => text.replace(/[&<>"']/g, (character) => ENTITIES[character]);

const cells = ([, , delimiters, rows = ""]) => delimiters.split("|").length * (rows.split("\n").length + 1);

/** Make CRLF and CR line ends LF. */
export const withPlainLineEnds = (text) => text.replace(/\r\n?/g, "\n");

/** Tell whether a text is too long or nests too deep to be read as markdown. */
export const isBeyondBounds = (text) =>
  text.length > MAX_TEXT || TOO_DEEP.test(text) || count(text, QUOTED_LINE) > MAX_QUOTED_LINES;

/**
 * Parse a text within bounds into top-level tokens; `links` holds reference definitions known before.
 * @param {string} text with LF line ends
 * @param {Record<string, object>} links
 * @returns {object[]} marked's tokens: each with `type` and `raw`, its source
 */
export function parseBlocks(text, links = {}) {
  const lexer = new Lexer(marked.defaults);
  Object.assign(lexer.tokens.links, links);
  lexer.blockTokens(text, lexer.tokens);
  for (const { src, tokens } of lexer.inlineQueue) parseInline(lexer, src, tokens);
  return lexer.tokens;
}

/** Render tokens as HTML that is still to be sanitised; null where it has too many tags to do that quickly. */
export function renderHtml(tokens) {
  const html = marked.parser(tokens);
  return count(html, TAGS) > MAX_TAGS ? null : html;
}

function parseInline(lexer, source, tokens) {
  if (isHeavy(source)) for (const token of plainLines(source)) tokens.push(token);
  else lexer.inlineTokens(source, tokens);
}

// marked's time for emphasis and links grows with the square of their delimiters.
const isHeavy = (source) => source.length > MAX_INLINE || count(source, DELIMITERS) > MAX_DELIMITERS;

const count = (text, pattern) => text.match(pattern)?.length ?? 0;

function plainLines(source) {
  const lines = source.split("\n").map((text) => ({ type: "text", raw: text, text, escaped: false }));
  return lines.flatMap((line, index) => (index ? [{ type: "br", raw: "\n" }, line] : [line]));
}
