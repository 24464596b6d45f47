// @ts-check
import { byId, fill, fromTemplate, part, showText } from "./dom.js";
import { showTime } from "./times.js";

/** @typedef {import("../client/protocol.js").Message} Message */
/** @typedef {import("./config.js").Config} Config */
/** @typedef {{ clientId: string, content: string, replyTo: number | null }} Draft */

const QUOTED_CHARACTERS = 120;

/** The list of messages: those of the history in the order of their `seq`, then those on their way. */
export class MessageList {
  /** @param {Config} config */
  constructor({ me, texts }) {
    this.me = me;
    this.texts = texts;
    this.list = byId("messages");
    /** @type {Map<string, HTMLElement>} By client id. */
    this.unsent = new Map();
    this.showQuotes();
    this.showEmptiness();
  }

  /** @returns {number | undefined} The `seq` of the oldest message shown. */
  get oldest() {
    const first = /** @type {HTMLElement | null} */ (this.list.querySelector("[data-seq]"));
    return first === null ? undefined : Number(first.dataset.seq);
  }

  /**
   * @param {number} id
   * @returns {HTMLElement | null}
   */
  find(id) {
    return document.getElementById(`message-${id}`);
  }

  /** @param {Message} message Shown instead of an older state of itself. */
  show(message) {
    const item = this.find(message.id) ?? this.unsent.get(message.client_id) ?? fromTemplate("message-template");
    this.unsent.delete(message.client_id);
    const isOwn = message.sender?.id === this.me.id;
    const isMentioned = message.mentioned_users.some(({ id }) => id === this.me.id);
    item.classList.toggle("own", isOwn);
    item.classList.toggle("mentions-me", isMentioned);
    part(item, "sender").textContent = message.sender?.username ?? this.texts.deletedUser;
    part(item, "content").textContent = message.content;
    part(item, "broadcast").hidden = !message.is_broadcast;
    const names = message.mentioned_users.map(({ username }) => username).join(", ");
    const mention = isMentioned ? this.texts.mentionsYou : names && fill(this.texts.mentions, { names });
    showText(part(item, "mention"), mention);
    this.place(item, message);
    this.quote(item, message.reply_to?.id ?? null);
  }

  /** @param {Draft} draft Shown as on its way. */
  showUnsent({ clientId, content, replyTo }) {
    const item = fromTemplate("message-template");
    item.classList.add("own");
    item.dataset.clientId = clientId;
    part(item, "sender").textContent = this.me.username;
    part(item, "content").textContent = content;
    this.quote(item, replyTo);
    this.unsent.set(clientId, item);
    this.list.append(item);
    this.setState(item, "pending", this.texts.sending);
    this.showEmptiness();
  }

  /**
   * @param {string} clientId
   * @param {{ id: number, seq: number, timestamp: string }} message
   */
  acknowledge(clientId, message) {
    const item = this.unsent.get(clientId);
    if (item === undefined) {
      return;
    }
    this.unsent.delete(clientId);
    if (this.find(message.id) === null) {
      this.place(item, message);
    } else {
      item.remove();
    }
  }

  /**
   * @param {string} clientId
   * @param {string} reason
   */
  fail(clientId, reason) {
    const item = this.unsent.get(clientId);
    if (item !== undefined) {
      this.setState(item, "failed", fill(this.texts.failed, { reason }));
    }
  }

  /** @param {string} clientId */
  discard(clientId) {
    this.unsent.get(clientId)?.remove();
    this.unsent.delete(clientId);
    this.showEmptiness();
  }

  /** Drop the history, but nothing that isn't sent. */
  clear() {
    for (const item of this.list.querySelectorAll("[data-seq]")) {
      item.remove();
    }
  }

  /** Say what answers answer, as far as that is shown. */
  showQuotes() {
    for (const item of this.list.querySelectorAll("[data-reply]")) {
      this.quote(/** @type {HTMLElement} */ (item), Number(/** @type {HTMLElement} */ (item).dataset.reply));
    }
  }

  /**
   * @param {HTMLElement} item
   * @param {number | null} answered
   */
  quote(item, answered) {
    const link = /** @type {HTMLAnchorElement} */ (part(item, "quote"));
    link.hidden = answered === null;
    if (answered === null) {
      delete item.dataset.reply;
      return;
    }
    item.dataset.reply = String(answered);
    link.href = `#message-${answered}`;
    const original = this.find(answered);
    link.textContent = original ? fill(this.texts.answer, this.excerpt(original)) : this.texts.answersEarlier;
  }

  /** @param {HTMLElement} item */
  excerpt(item) {
    const characters = [...(part(item, "content").textContent ?? "")];
    const text = characters.slice(0, QUOTED_CHARACTERS).join("");
    return {
      name: part(item, "sender").textContent ?? "",
      text: characters.length > QUOTED_CHARACTERS ? `${text}…` : text,
    };
  }

  /**
   * @param {HTMLElement} item
   * @param {{ id: number, seq: number, timestamp: string }} message
   */
  place(item, { id, seq, timestamp }) {
    item.id = `message-${id}`;
    item.dataset.id = String(id);
    item.dataset.seq = String(seq);
    delete item.dataset.clientId;
    showTime(part(item, "time"), timestamp);
    this.setState(item, "", "");
    let next = null;
    let previous = /** @type {HTMLElement | null} */ (this.list.lastElementChild);
    while (previous !== null && (previous === item || !(Number(previous.dataset.seq) < seq))) {
      next = previous === item ? next : previous;
      previous = /** @type {HTMLElement | null} */ (previous.previousElementSibling);
    }
    if (item.parentElement === null || item.nextElementSibling !== next) {
      this.list.insertBefore(item, next);
    }
    this.showEmptiness();
  }

  /**
   * @param {HTMLElement} item
   * @param {"" | "pending" | "failed"} state
   * @param {string} text
   */
  setState(item, state, text) {
    item.classList.toggle("pending", state === "pending");
    item.classList.toggle("failed", state === "failed");
    showText(part(item, "state"), text);
    for (const button of item.querySelectorAll("[data-action]")) {
      const isForFailed = /** @type {HTMLElement} */ (button).dataset.action !== "reply";
      /** @type {HTMLElement} */ (button).hidden = isForFailed ? state !== "failed" : state !== "";
    }
  }

  showEmptiness() {
    byId("no-messages").hidden = this.list.childElementCount > 0;
  }
}
