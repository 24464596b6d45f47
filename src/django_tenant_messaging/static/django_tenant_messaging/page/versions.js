// @ts-check
import { fill, part } from "./dom.js";
import { showTime } from "./times.js";

/** @typedef {import("../client/protocol.js").Revision} Revision */
/** @typedef {import("./config.js").Texts} Texts */

/** Shows what a message said before its edits. */
export class Versions {
  /**
   * @param {HTMLElement} list Of the messages.
   * @param {Texts} texts
   * @param {object} on
   * @param {(item: HTMLElement) => Promise<Revision[]>} on.read
   * @param {(error: unknown) => string} on.reason
   */
  constructor(list, texts, on) {
    this.texts = texts;
    this.on = on;
    list.addEventListener("message-changed", (event) => this.close(/** @type {HTMLElement} */ (event.target)));
  }

  /** @param {HTMLElement} item */
  async toggle(item) {
    const button = part(item, "edited");
    if (button.getAttribute("aria-expanded") === "true") {
      this.close(item);
      return;
    }
    button.setAttribute("aria-expanded", "true");
    const changed = item.dataset.changed;
    let lines;
    try {
      lines = (await this.on.read(item)).map((revision) => this.line(revision));
    } catch (error) {
      lines = [document.createElement("li")];
      lines[0].textContent = fill(this.texts.noVersions, { reason: this.on.reason(error) });
    }
    // It may have been closed, or the message changed again, while they were read.
    if (button.getAttribute("aria-expanded") === "true" && item.dataset.changed === changed) {
      part(item, "versions").replaceChildren(...lines);
      part(item, "versions").hidden = false;
      part(item, "versions").scrollIntoView({ block: "nearest" });
    }
  }

  /** @param {HTMLElement} item */
  close(item) {
    part(item, "edited").setAttribute("aria-expanded", "false");
    part(item, "versions").hidden = true;
    part(item, "versions").replaceChildren();
  }

  /** @param {Revision} revision */
  line({ content, written_at: writtenAt }) {
    const line = document.createElement("li");
    const time = document.createElement("time");
    const text = document.createElement("p");
    showTime(time, writtenAt);
    text.className = "earlier";
    text.dir = "auto";
    text.textContent = content;
    line.append(time, text);
    return line;
  }
}
