/** Making elements: of text and attributes alone, never of markup. */

/**
 * Return an element with attributes and children, which are elements or text.
 * @param {string} name
 * @param {Record<string, string | boolean>} [attributes]
 * @param {...(Node | string)} children
 */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** Return text as nodes; what stands between backticks is code. */
export const prose = (text) =>
  text.split("`").map((piece, index) => (index % 2 ? element("code", {}, piece) : piece));

/** Return a table; its rows are lists of cells, the first of which names the row. */
export function table(columns, rows) {
  const head = columns.map((column) => element("th", { scope: "col" }, column));
  const body = rows.map(([name, ...cells]) => {
    const others = cells.map((cell) => element("td", {}, ...[cell].flat()));
    return element("tr", {}, element("th", { scope: "row" }, name), ...others);
  });
  const whole = element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body));
  return element("div", { class: "scrolled", tabindex: "0", role: "group", "aria-label": columns[0] }, whole);
}

/** Return a block of text as it is; long lines are broken. */
export const block = (text, label, attributes = {}) =>
  element("pre", { tabindex: "0", role: "group", "aria-label": label, ...attributes }, text);

export const pretty = (value) => JSON.stringify(value, null, 2);
