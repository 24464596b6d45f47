// @ts-check
import { byId, fill, part, showText } from "./dom.js";

/** @typedef {import("./config.js").Texts} Texts */

/** Where a message is written. */
export class Composer {
  /**
   * @param {Texts} texts
   * @param {object} on
   * @param {(content: string, replyTo: number | null) => void} on.send
   * @param {(isTyping: boolean) => void} on.typing
   */
  constructor(texts, on) {
    this.texts = texts;
    this.form = /** @type {HTMLFormElement} */ (byId("composer"));
    this.field = /** @type {HTMLTextAreaElement} */ (byId("id_content"));
    this.answering = byId("answering");
    /** @type {number | null} */
    this.replyTo = null;
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.field.value.trim() !== "") {
        on.send(this.field.value, this.replyTo);
        this.field.value = "";
        this.answer(null);
        on.typing(false);
      }
    });
    this.field.addEventListener("input", () => on.typing(this.field.value !== ""));
    this.field.addEventListener("keydown", (event) => this.key(event));
    part(this.answering, "cancel").addEventListener("click", () => this.answer(null));
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    // While an input method composes, Enter takes its suggestion.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      this.form.requestSubmit();
    } else if (event.key === "Escape" && !event.isComposing) {
      this.answer(null);
    }
  }

  /** @param {{ id: number, name: string, text: string } | null} message The one to answer. */
  answer(message) {
    this.replyTo = message?.id ?? null;
    this.answering.hidden = message === null;
    part(this.answering, "text").textContent = message === null ? "" : fill(this.texts.answer, message);
    this.field.focus();
  }

  /** @param {{ id: number, name: string, text: string }} message It says something else now. */
  refresh(message) {
    if (this.replyTo === message.id) {
      part(this.answering, "text").textContent = fill(this.texts.answer, message);
    }
  }

  /** @param {string} reason */
  disable(reason) {
    showText(byId("composer-notice"), reason);
    for (const element of this.form.querySelectorAll("textarea, button")) {
      element.setAttribute("disabled", "");
    }
  }
}
