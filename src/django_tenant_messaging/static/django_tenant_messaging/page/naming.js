// @ts-check
import { byId, fill, isolated, part, showText } from "./dom.js";

/** @typedef {import("./config.js").Texts} Texts */

/** The room's name, and the form that changes it, which a direct conversation doesn't have. */
export class Naming {
  /**
   * @param {Texts} texts
   * @param {object} on
   * @param {(name: string) => Promise<string>} on.rename
   * @param {(error: unknown) => string} on.reason
   */
  constructor(texts, on) {
    this.texts = texts;
    this.on = on;
    this.form = /** @type {HTMLFormElement | null} */ (document.getElementById("naming"));
    this.form?.addEventListener("submit", (event) => {
      event.preventDefault();
      this.save();
    });
  }

  get field() {
    return /** @type {HTMLInputElement | null} */ (this.form?.querySelector("input[name$=name]") ?? null);
  }

  async save() {
    if (this.form === null || this.field === null) {
      return;
    }
    const notice = part(this.form, "notice");
    try {
      this.show(await this.on.rename(this.field.value));
      showText(notice, "");
    } catch (error) {
      const isBadName = /** @type {{ code?: string }} */ (error).code === "invalid";
      const reason = isBadName ? this.texts.nameRule : this.on.reason(error);
      showText(notice, fill(this.texts.notRenamed, { reason }));
    }
  }

  /** @param {string} name */
  show(name) {
    byId("room-title").textContent = name;
    document.title = fill(this.texts.pageTitle, { name: isolated(name) });
    if (this.field !== null && document.activeElement !== this.field) {
      this.field.value = name;
    }
  }
}
