// @ts-check
import { byId, fromTemplate, part } from "./dom.js";

/** @typedef {import("../client.js").MessagingClient} MessagingClient */
/** @typedef {import("../client/protocol.js").UserRef} UserRef */
/** @typedef {import("./config.js").Config} Config */

/** The room's members and who of them is online. */
export class Members {
  /**
   * @param {MessagingClient} client
   * @param {Config} config
   */
  constructor(client, { room, me, members, texts }) {
    this.texts = texts;
    this.members = members;
    this.list = byId("members");
    const toggle = byId("members-toggle");
    toggle.addEventListener("click", () => {
      const isOpen = byId("room").classList.toggle("shows-members");
      toggle.setAttribute("aria-expanded", String(isOpen));
    });
    this.listen(client, "hello", ({ online, online_limited: isLimited }) => {
      if (!members.tellsPresence) {
        return;
      }
      const ids = new Set([me.id, ...online.map((/** @type {UserRef} */ user) => user.id)]);
      for (const item of this.items()) {
        const isOnline = ids.has(item.dataset.user ?? "");
        // Of the others it isn't told then; the page knew when it was made.
        if (isOnline || !isLimited) {
          this.setOnline(item, isOnline);
        }
      }
    });
    this.listen(client, "presence", ({ user, is_online: isOnline }) => {
      const item = this.find(user.id);
      if (item !== undefined) {
        this.setOnline(item, isOnline);
      }
    });
    this.listen(client, "members", (frame) => {
      if (frame.room === room) {
        frame.joined.forEach((/** @type {UserRef} */ user) => this.add(user));
        frame.left.forEach((/** @type {UserRef} */ user) => this.find(user.id)?.remove());
        this.count(frame.joined.length - frame.left.length);
      }
    });
  }

  /**
   * @param {MessagingClient} client
   * @param {string} name
   * @param {(frame: any) => void} listener
   */
  listen(client, name, listener) {
    client.addEventListener(name, (event) => listener(/** @type {import("../client.js").ClientEvent} */ (event).detail));
  }

  /** @param {number} change */
  count(change) {
    if (this.members.number <= this.members.mostCounted) {
      this.members.number += change;
      byId("members-number").textContent = String(this.members.number);
    }
  }

  /** @returns {HTMLElement[]} */
  items() {
    return /** @type {HTMLElement[]} */ ([...this.list.children]);
  }

  /** @param {string} id */
  find(id) {
    return this.items().find((item) => item.dataset.user === id);
  }

  /** @param {UserRef} user */
  add({ id, username }) {
    // Of a room with more members than the page shows, newcomers are on another page.
    if (this.members.areAll && this.find(id) === undefined) {
      const item = fromTemplate("member-template");
      item.dataset.user = id;
      part(item, "name").textContent = username;
      this.setOnline(item, false);
      this.list.append(item);
    }
  }

  /**
   * @param {HTMLElement} item
   * @param {boolean} isOnline
   */
  setOnline(item, isOnline) {
    item.classList.toggle("online", isOnline);
    part(item, "status").textContent = isOnline ? this.texts.online : this.texts.offline;
  }
}
