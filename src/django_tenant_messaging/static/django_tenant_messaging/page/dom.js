// @ts-check

/**
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (found === null) {
    throw new Error(`The page has no element #${id}.`);
  }
  return found;
}

/**
 * @param {ParentNode} root
 * @param {string} name
 * @returns {HTMLElement} The element that templates mark by `data-part`.
 */
export function part(root, name) {
  const found = root.querySelector(`[data-part="${name}"]`);
  if (found === null) {
    throw new Error(`There is no part "${name}".`);
  }
  return /** @type {HTMLElement} */ (found);
}

/**
 * @param {string} id Of a `<template>` with one element.
 * @returns {HTMLElement}
 */
export function fromTemplate(id) {
  const template = /** @type {HTMLTemplateElement} */ (byId(id));
  return /** @type {HTMLElement} */ (document.importNode(template.content, true).firstElementChild);
}

/**
 * @param {HTMLElement} element
 * @param {string} text An empty one hides the element.
 */
export function showText(element, text) {
  element.textContent = text;
  element.hidden = text === "";
}

/**
 * @param {string} text With gettext's `%(name)s`.
 * @param {{ [name: string]: string | number }} values
 */
export function fill(text, values) {
  return text.replace(/%\((\w+)\)s/g, (_, name) => String(values[name]));
}

const HARMFUL = /[\p{Cc}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]/gu;
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;

/**
 * @param {string} name
 * @returns {string} The name to be put into another text, of which it changes neither the order nor the lines.
 */
export function isolated(name) {
  const plain = name.replace(HARMFUL, " ");
  return RIGHT_TO_LEFT.test(plain) ? `\u2068${plain}\u2069` : plain;
}
