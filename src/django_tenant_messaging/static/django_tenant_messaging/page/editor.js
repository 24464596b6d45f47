// @ts-check
import { fill, fromTemplate, part, showText } from "./dom.js";

/** @typedef {import("./config.js").Texts} Texts */

/** Edits messages in their place. */
export class Editor {
  /**
   * @param {HTMLElement} list Of the messages.
   * @param {Texts} texts
   * @param {object} on
   * @param {(item: HTMLElement, content: string) => Promise<void>} on.save
   * @param {(error: unknown) => string} on.reason
   */
  constructor(list, texts, on) {
    this.texts = texts;
    this.on = on;
    list.addEventListener("message-changed", (event) => {
      const item = /** @type {HTMLElement} */ (event.target);
      if (item.classList.contains("deleted")) {
        this.close(item);
      }
    });
  }

  /** @param {HTMLElement} item */
  open(item) {
    if (this.form(item) !== null) {
      return;
    }
    const content = part(item, "content");
    const form = /** @type {HTMLFormElement} */ (fromTemplate("editor-template"));
    const field = /** @type {HTMLTextAreaElement} */ (part(form, "field"));
    field.value = content.textContent ?? "";
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.save(item, form, field);
    });
    form.addEventListener("keydown", (event) => {
      // While an input method composes, both keys are its own.
      if (event.isComposing) {
        return;
      }
      if (event.key === "Escape") {
        event.preventDefault();
        this.close(item);
      } else if (event.key === "Enter" && event.target === field && !event.shiftKey) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    part(form, "cancel").addEventListener("click", () => this.close(item));
    // The field grows with its text.
    field.addEventListener("input", () => form.scrollIntoView({ block: "nearest" }));
    item.classList.add("editing");
    content.after(form);
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
    form.scrollIntoView({ block: "nearest" });
  }

  /**
   * @param {HTMLElement} item
   * @param {HTMLFormElement} form
   * @param {HTMLTextAreaElement} field
   */
  async save(item, form, field) {
    if (form.getAttribute("aria-busy") === "true") {
      return;
    }
    if (field.value.trim() === "") {
      showText(part(form, "notice"), this.texts.errors.invalid);
      return;
    }
    if (field.value === part(item, "content").textContent) {
      this.close(item);
      return;
    }
    form.setAttribute("aria-busy", "true");
    field.readOnly = true;
    try {
      await this.on.save(item, field.value);
      this.close(item);
    } catch (error) {
      form.setAttribute("aria-busy", "false");
      field.readOnly = false;
      showText(part(form, "notice"), fill(this.texts.notSaved, { reason: this.on.reason(error) }));
    }
  }

  /** @param {HTMLElement} item */
  close(item) {
    const form = this.form(item);
    if (form === null) {
      return;
    }
    const hadFocus = form.contains(document.activeElement);
    form.remove();
    item.classList.remove("editing");
    if (hadFocus) {
      const button = /** @type {HTMLElement} */ (item.querySelector('.tools [data-action="edit"]'));
      (button.hidden ? item : button).focus();
    }
  }

  /**
   * @param {HTMLElement} item
   * @returns {HTMLFormElement | null}
   */
  form(item) {
    return item.querySelector("form.editor");
  }
}
