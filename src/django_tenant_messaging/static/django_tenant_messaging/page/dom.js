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
