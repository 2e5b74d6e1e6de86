/** Markdown as a model writes it, rendered as DOM that is safe to show. */

import { isBeyondBounds, parseBlocks, renderHtml, withPlainLineEnds } from "./blocks.js";
import { createCodeBlock } from "./code-block.js";
import { sanitiseMarkdown } from "./sanitise.js";

const MAX_LABEL = 100;

/**
 * Render a message. HTML in it is shown as text, images become links, headings start at h3; what is too long or nests too
 * deep is shown as it is.
 * @param {string} text
 * @returns {DocumentFragment} elements only, one per block
 */
export function renderMarkdown(text) {
  const source = withPlainLineEnds(text);
  if (isBeyondBounds(source)) return renderPlain(source);
  const fragment = renderTokens(parseBlocks(source));
  // Reference definitions alone would leave nothing to be seen.
  return fragment.childElementCount || !source.trim() ? fragment : renderPlain(source);
}

/**
 * Render tokens of `parseBlocks`.
 * @returns {DocumentFragment} elements only, one per block
 */
export function renderTokens(tokens) {
  const html = renderHtml(tokens);
  if (html === null) return renderPlain(tokens.map(({ raw }) => raw).join(""));
  const fragment = sanitiseMarkdown(html);
  fragment.replaceChildren(...fragment.children);
  fragment.querySelectorAll("pre").forEach(withHeader);
  fragment.querySelectorAll("a").forEach(asOutwardLink);
  fragment.querySelectorAll("table").forEach(asScrollable);
  fragment.querySelectorAll("input").forEach(asTask);
  for (const block of fragment.children) block.dir = "auto";
  return fragment;
}

/**
 * Show a text as it is.
 * @returns {DocumentFragment} one element
 */
export function renderPlain(text) {
  const fragment = document.createDocumentFragment();
  fragment.append(createPlain(text));
  return fragment;
}

/** Create the element that shows a text as it is. */
export function createPlain(text) {
  const pre = document.createElement("pre");
  pre.className = "plain";
  pre.dir = "auto";
  pre.textContent = text;
  return pre;
}

function withHeader(pre) {
  const language = pre.firstElementChild.className.replace(/^language-/, "");
  pre.replaceWith(createCodeBlock(pre.textContent.replace(/\n$/, ""), language));
}

function asOutwardLink(link) {
  if (!link.hasAttribute("href")) return link.replaceWith(...link.childNodes);
  link.target = "_blank";
  link.rel = "noopener noreferrer nofollow";
  if (!link.textContent.trim()) link.textContent = link.href;
  return link;
}

function asScrollable(table) {
  const region = document.createElement("div");
  region.className = "table-scroll";
  region.tabIndex = 0;
  region.setAttribute("role", "group");
  region.setAttribute("aria-label", "Table");
  table.replaceWith(region);
  region.append(table);
}

function asTask(checkbox) {
  const item = checkbox.closest("li");
  item.className = "task";
  checkbox.setAttribute("aria-label", item.textContent.trim().slice(0, MAX_LABEL) || "Task");
}
