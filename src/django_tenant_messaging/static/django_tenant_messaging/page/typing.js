// @ts-check
import { byId, fill, isolated } from "./dom.js";

/** @typedef {import("../client.js").MessagingClient} MessagingClient */
/** @typedef {import("./config.js").Config} Config */

const RENEW_MS = 3_000;

/** Who else is typing, and telling the others of one's own typing. */
export class Typing {
  /**
   * @param {MessagingClient} client
   * @param {Config} config
   */
  constructor(client, { room, me, texts }) {
    this.client = client;
    this.room = room;
    this.texts = texts;
    this.line = byId("typing");
    /** @type {Map<string, { name: string, timer: number }>} */
    this.others = new Map();
    this.toldAt = 0;
    client.addEventListener("typing", (event) => {
      const frame = /** @type {import("../client.js").ClientEvent} */ (event).detail;
      if (frame.room === room && frame.user.id !== me.id) {
        this.note(frame.user, frame.is_typing ? frame.expires_in : 0);
      }
    });
  }

  /**
   * @param {{ id: string, username: string }} user
   * @param {number} seconds How long it counts, 0 for no longer.
   */
  note({ id, username }, seconds) {
    clearTimeout(this.others.get(id)?.timer);
    this.others.delete(id);
    if (seconds > 0) {
      const timer = setTimeout(() => this.note({ id, username }, 0), seconds * 1_000);
      this.others.set(id, { name: username, timer });
    }
    const names = [...this.others.values()].map(({ name }) => isolated(name));
    const text = names.length === 1 ? this.texts.isTyping : this.texts.areTyping;
    this.line.textContent = names.length === 0 ? "" : fill(text, { name: names[0], names: names.join(", ") });
  }

  /** @param {boolean} isTyping */
  tell(isTyping) {
    const now = Date.now();
    if (isTyping ? now - this.toldAt < RENEW_MS : this.toldAt === 0) {
      return;
    }
    this.toldAt = isTyping ? now : 0;
    // Only a courtesy: without a connection nobody misses it.
    this.client.setTyping(this.room, isTyping).catch(() => {});
  }
}
