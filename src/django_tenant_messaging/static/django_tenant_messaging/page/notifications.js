// @ts-check
import { roomUrl } from "./config.js";
import { byId, fill, part, showText } from "./dom.js";
import { showTime } from "./times.js";

/** @typedef {import("../client.js").MessagingClient} MessagingClient */
/** @typedef {import("./config.js").Config} Config */
/** @typedef {import("../client/protocol.js").Notification} Notification */

/** The unread notifications: their number and their list. */
export class Notifications {
  /**
   * @param {MessagingClient} client
   * @param {Config} config
   */
  constructor(client, config) {
    this.client = client;
    this.config = config;
    this.root = byId("notifications");
    /** @type {Map<number, { room: number | null, message: number | null }>} */
    this.unread = new Map(config.notifications.map(({ id, room, message }) => [id, { room, message }]));
    client.addEventListener("notification", (event) => {
      this.add(/** @type {import("../client.js").ClientEvent} */ (event).detail.notification);
    });
    client.addEventListener("message", (event) => {
      const { message } = /** @type {import("../client.js").ClientEvent} */ (event).detail;
      if (message.deleted_at !== null) {
        this.forget((about) => about.message === message.id);
      }
    });
    client.addEventListener("read", (event) => {
      this.read(/** @type {import("../client.js").ClientEvent} */ (event).detail);
    });
  }

  /** @param {Notification} notification */
  add({ id, text, room, message_id: message, created_at: createdAt, is_read: isRead }) {
    if (isRead || this.unread.has(id)) {
      return;
    }
    this.unread.set(id, { room, message });
    const item = document.createElement("li");
    item.dataset.id = String(id);
    const link = document.createElement(room === null ? "span" : "a");
    link.textContent = text;
    if (link instanceof HTMLAnchorElement) {
      link.href = roomUrl(this.config, room ?? 0);
    }
    const time = document.createElement("time");
    showTime(time, createdAt);
    item.append(link, " ", time);
    part(this.root, "list").prepend(item);
    part(this.root, "announcement").textContent = fill(this.config.texts.newNotification, { text });
    this.show();
  }

  /**
   * Whoever has read a room to its end has read the notifications about it.
   *
   * @param {{ room: number, seq: number, user: { id: string } }} read
   */
  read({ room, seq, user }) {
    if (user.id !== this.config.me.id || seq < (this.client.position(room)?.seq ?? 0)) {
      return;
    }
    this.forget((about) => about.room === room);
  }

  /** @param {(about: { room: number | null, message: number | null }) => boolean} isMeant */
  forget(isMeant) {
    for (const [id, about] of this.unread) {
      if (isMeant(about)) {
        this.unread.delete(id);
        this.root.querySelector(`[data-id="${id}"]`)?.remove();
      }
    }
    this.show();
  }

  show() {
    const count = this.unread.size;
    showText(part(this.root, "count"), count ? String(count) : "");
    part(this.root, "none").hidden = count > 0;
    part(this.root, "form").hidden = count === 0;
  }
}
