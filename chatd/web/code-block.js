/** A block of code with its language and a button that copies it. */

import { showCode } from "./highlight.js";

const COPIED_FOR = 2_000;

/**
 * Create a block of code.
 * @param {string} text
 * @param {string} language as the author of the code named it, or ""
 * @returns {HTMLElement} its `code` element holds the text
 */
export function createCodeBlock(text, language) {
  const block = element("div", "code-block");
  const pre = element("pre");
  const code = element("code", "hljs");
  pre.tabIndex = 0;
  pre.dir = "ltr";
  showCode(code, text, language);
  pre.append(code);
  block.append(header(language, code), pre);
  return block;
}

function header(language, code) {
  const bar = element("div", "code-header");
  const label = element("span", "code-language");
  label.textContent = language;
  bar.append(label, copyButton(code));
  return bar;
}

function copyButton(code) {
  const button = element("button", "copy-code");
  button.type = "button";
  button.dataset.testid = "copy-code";
  button.textContent = "Copy";
  button.setAttribute("aria-live", "polite");
  button.addEventListener("click", () => copyAndTell(button, code));
  return button;
}

async function copyAndTell(button, code) {
  button.textContent = (await copy(code)) ? "Copied" : "Not copied";
  setTimeout(() => (button.textContent = "Copy"), COPIED_FOR);
}

async function copy(code) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    return true;
  } catch {
    return copySelected(code);
  }
}

// navigator.clipboard is there in secure contexts only; a page served by plain HTTP still has this.
function copySelected(code) {
  const selection = getSelection();
  selection.selectAllChildren(code);
  const copied = document.execCommand("copy");
  selection.removeAllRanges();
  return copied;
}

function element(name, className = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  return made;
}
