/** Highlighting of code; a language's grammar is loaded when it first occurs. */

import { sanitiseHighlighted } from "./sanitise.js";
import hljs from "./vendor/highlight/core.min.js";

const MAX_HIGHLIGHTED = 50_000;

const GRAMMARS = new Set(
  "bash c cpp css diff dockerfile go ini java javascript json markdown python rust sql typescript xml yaml".split(" "),
);
const ALIASES = new Map(
  Object.entries({
    console: "bash", sh: "bash", shell: "bash", zsh: "bash", h: "c", "c++": "cpp", cc: "cpp", hpp: "cpp", patch: "diff",
    docker: "dockerfile", golang: "go", toml: "ini", js: "javascript", jsx: "javascript", mjs: "javascript", jsonc: "json",
    md: "markdown", py: "python", python3: "python", rs: "rust", postgresql: "sql", ts: "typescript", tsx: "typescript",
    html: "xml", svg: "xml", yml: "yaml",
  }),
);
const EMBEDDED = { xml: ["css", "javascript"], markdown: ["xml"] };

/** @type {Map<string, Promise<void>>} */
const loading = new Map();

/**
 * Put code into an element, highlighted: at once where the language is loaded, later where it is being loaded.
 * @param {HTMLElement} element
 * @param {string} text
 * @param {string} language as the author of the code named it
 */
export function showCode(element, text, language) {
  const grammar = grammarOf(language);
  element.textContent = text;
  if (!grammar || text.length > MAX_HIGHLIGHTED) return;
  if (hljs.getLanguage(grammar)) paint(element, text, grammar);
  else load(grammar).then(() => text && element.textContent === text && paint(element, text, grammar), ignoreUntilNextTime);
}

/** The grammar for a language's name, or undefined where there is none. */
function grammarOf(language) {
  const name = language.toLowerCase();
  return GRAMMARS.has(name) ? name : ALIASES.get(name);
}

function paint(element, text, language) {
  element.replaceChildren(sanitiseHighlighted(hljs.highlight(text, { language, ignoreIllegals: true }).value));
}

function load(grammar) {
  if (!loading.has(grammar)) loading.set(grammar, register(grammar));
  return loading.get(grammar).catch((error) => {
    loading.delete(grammar);
    throw error;
  });
}

async function register(grammar) {
  await Promise.all((EMBEDDED[grammar] ?? []).map(load));
  const module = await import(`./vendor/highlight/${grammar}.min.js`);
  hljs.registerLanguage(grammar, module.default);
}

// Without its grammar (the network is away, say) code stays readable as it is.
function ignoreUntilNextTime() {}
