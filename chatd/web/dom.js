/** Finding parts of the page, and how times and numbers are written in it. */

/**
 * Return the element with a test id.
 * @param {string} testId
 * @param {ParentNode} [root]
 */
export const find = (testId, root = document) => root.querySelector(`[data-testid="${testId}"]`);

/** Return the element that plays a part, by its `data-part`. */
export const part = (name, root = document) => root.querySelector(`[data-part="${name}"]`);

/** Return a copy of the one element in a template. */
export const fromTemplate = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);

/** Show text in an element, or hide the element where there is none. */
export function show(element, text) {
  element.textContent = text ?? "";
  element.hidden = !text;
}

const number = new Intl.NumberFormat();
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const both = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const age = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

export const formatNumber = (value) => number.format(value);

/** Write a moment: the time today, date and time before. */
export function showTime(element, iso) {
  const moment = new Date(iso);
  const today = moment.toDateString() === new Date().toDateString();
  element.dateTime = iso;
  element.title = both.format(moment);
  element.textContent = (today ? clock : both).format(moment);
}

/** Write how long ago a moment is: minutes, hours, days; the date after a week. */
export function showAge(element, iso) {
  const moment = new Date(iso);
  element.dateTime = iso;
  element.title = both.format(moment);
  element.textContent = describeAge(moment, (Date.now() - moment.getTime()) / 60_000);
}

function describeAge(moment, minutes) {
  if (minutes < 1) return age.format(0, "second");
  if (minutes < 60) return age.format(-Math.floor(minutes), "minute");
  if (minutes < 24 * 60) return age.format(-Math.floor(minutes / 60), "hour");
  if (minutes < 7 * 24 * 60) return age.format(-Math.floor(minutes / 60 / 24), "day");
  return day.format(moment);
}
