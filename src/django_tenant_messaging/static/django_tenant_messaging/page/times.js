// @ts-check

const language = document.documentElement.lang || undefined;
const timeOfDay = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit" });
const dayAndTime = new Intl.DateTimeFormat(language, {
  day: "numeric",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
});
const complete = new Intl.DateTimeFormat(language, { dateStyle: "full", timeStyle: "long" });

/**
 * Show a moment in the reader's time zone.
 *
 * @param {HTMLElement} element A `<time>`.
 * @param {string} iso
 */
export function showTime(element, iso) {
  const moment = new Date(iso);
  const isToday = moment.toDateString() === new Date().toDateString();
  element.setAttribute("datetime", iso);
  element.textContent = (isToday ? timeOfDay : dayAndTime).format(moment);
  element.title = completeTime(iso);
}

/** @param {string} iso */
export function completeTime(iso) {
  return complete.format(new Date(iso));
}

/** @param {ParentNode} root */
export function localiseTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    showTime(/** @type {HTMLElement} */ (element), element.getAttribute("datetime") ?? "");
  }
}
