/** DOMPurify with what a chat message may hold. */

import "./vendor/purify.min.js";

// The minified file is half the size of the ES module, and sets a global.
const { DOMPurify } = globalThis;

const MARKDOWN = {
  ALLOWED_TAGS: (
    "a blockquote br code del em h3 h4 h5 h6 hr input li ol p pre strong table tbody td th thead tr ul"
  ).split(" ").concat("#text"),
  ALLOWED_ATTR: ["align", "checked", "class", "disabled", "href", "start", "title", "type"],
  ALLOWED_URI_REGEXP: /^(?:https?:\/\/|mailto:)/i,
  // Of the other attributes, too, DOMPurify takes the value for an address.
  ADD_URI_SAFE_ATTR: ["align", "start", "type"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};
const HIGHLIGHTED = { ...MARKDOWN, ALLOWED_TAGS: ["span", "#text"], ALLOWED_ATTR: ["class"] };

/** Make a fragment of a message's HTML; what is not on the list is left out. */
export const sanitiseMarkdown = (html) => DOMPurify.sanitize(html, MARKDOWN);

/** Make a fragment of highlighted code: spans with classes and nothing else. */
export const sanitiseHighlighted = (html) => DOMPurify.sanitize(html, HIGHLIGHTED);
