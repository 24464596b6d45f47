// @ts-check
import { byId, fill, part, showText } from "./dom.js";

/** @typedef {import("./config.js").Texts} Texts */

/** Asks before a message is deleted. */
export class Deletion {
  /**
   * @param {Texts} texts
   * @param {object} on
   * @param {(item: HTMLElement) => Promise<void>} on.confirm
   * @param {(error: unknown) => string} on.reason
   */
  constructor(texts, on) {
    this.texts = texts;
    this.on = on;
    this.dialog = /** @type {HTMLDialogElement} */ (byId("deletion"));
    this.button = /** @type {HTMLButtonElement} */ (part(this.dialog, "confirm"));
    /** @type {HTMLElement | null} */
    this.item = null;
    part(this.dialog, "cancel").addEventListener("click", () => this.dialog.close());
    this.button.addEventListener("click", () => this.confirm());
  }

  /**
   * @param {HTMLElement} item
   * @param {{ name: string, text: string }} excerpt
   */
  ask(item, { name, text }) {
    this.item = item;
    part(this.dialog, "sender").textContent = name;
    part(this.dialog, "text").textContent = text;
    showText(part(this.dialog, "notice"), "");
    // A modal dialog keeps the focus, closes with Escape and gives the focus back.
    this.dialog.showModal();
  }

  async confirm() {
    const item = this.item;
    if (item === null || this.button.disabled) {
      return;
    }
    this.button.disabled = true;
    try {
      await this.on.confirm(item);
      this.dialog.close();
      item.focus();
    } catch (error) {
      showText(part(this.dialog, "notice"), fill(this.texts.notDeleted, { reason: this.on.reason(error) }));
    }
    this.button.disabled = false;
  }
}
