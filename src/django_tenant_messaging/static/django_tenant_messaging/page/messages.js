// @ts-check
import { byId, fill, fromTemplate, isolated, part, showText } from "./dom.js";
import { completeTime, showTime } from "./times.js";

/** @typedef {import("../client/protocol.js").Message} Message */
/** @typedef {import("../client/protocol.js").HistoryPage} HistoryPage */
/** @typedef {import("./config.js").Config} Config */
/** @typedef {{ clientId: string, content: string, replyTo: number | null }} Draft */

const QUOTED_CHARACTERS = 120;

/** The list of messages: those of the history in the order of their `seq`, then those on their way. */
export class MessageList {
  /** @param {Config} config */
  constructor({ me, texts, ownsRoom, editWindow }) {
    this.me = me;
    this.texts = texts;
    this.ownsRoom = ownsRoom;
    this.editWindow = editWindow;
    this.isClosed = false;
    this.list = byId("messages");
    /** @type {Map<string, HTMLElement>} By client id. */
    this.unsent = new Map();
    /** @type {Map<number, Message>} Newer states that came while pages of the history were on their way. */
    this.newer = new Map();
    this.loading = 0;
    this.showQuotes();
    this.showAllTools();
    this.showEmptiness();
    // Time may have run out for editing since they were last shown.
    for (const moment of ["pointerover", "focusin"]) {
      this.list.addEventListener(moment, (event) => {
        const item = /** @type {HTMLElement} */ (event.target).closest(".message");
        if (item !== null) {
          this.showTools(/** @type {HTMLElement} */ (item));
        }
      });
    }
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
    if (this.isNewer(item, message)) {
      return;
    }
    this.unsent.delete(message.client_id);
    const isOwn = message.sender?.id === this.me.id;
    const isMentioned = message.mentioned_users.some(({ id }) => id === this.me.id);
    item.classList.toggle("own", isOwn);
    item.classList.toggle("mentions-me", isMentioned);
    part(item, "sender").textContent = message.sender?.username ?? this.texts.deletedUser;
    part(item, "broadcast").hidden = !message.is_broadcast;
    const names = message.mentioned_users.map(({ username }) => isolated(username)).join(", ");
    const mention = isMentioned ? this.texts.mentionsYou : names && fill(this.texts.mentions, { names });
    showText(part(item, "mention"), mention);
    this.place(item, message);
    this.quote(item, message.reply_to?.id ?? null);
    this.change(item, message);
  }

  /** @param {Message} message Another state of an older one; what isn't shown is read with the history. */
  replace(message) {
    if (this.loading > 0 && (this.newer.get(message.id)?.changed_seq ?? 0) < message.changed_seq) {
      this.newer.set(message.id, message);
    }
    if (this.find(message.id) !== null) {
      this.show(message);
    }
  }

  /**
   * @param {HTMLElement} item
   * @param {{ changed_seq: number }} state
   */
  isNewer(item, state) {
    return Number(item.dataset.changed) > state.changed_seq;
  }

  /**
   * Wait for a page of the history. A change that happens meanwhile may arrive before the page, which then is the older.
   *
   * @param {Promise<HistoryPage>} request
   * @returns {Promise<HistoryPage>} The page with the newest states.
   */
  async received(request) {
    this.loading += 1;
    try {
      const page = await request;
      const messages = page.messages.map((message) => {
        const newer = this.newer.get(message.id);
        return newer !== undefined && newer.changed_seq > message.changed_seq ? newer : message;
      });
      return { ...page, messages };
    } finally {
      this.loading -= 1;
      if (this.loading === 0) {
        this.newer.clear();
      }
    }
  }

  /**
   * Show what became of a message: its text, that it was edited, or that it was deleted.
   *
   * @param {HTMLElement} item
   * @param {{ changed_seq: number, content: string, edited_at: string | null, deleted_at: string | null }} state
   */
  change(item, { changed_seq: changed, content, edited_at: editedAt, deleted_at: deletedAt }) {
    if (this.isNewer(item, { changed_seq: changed })) {
      return;
    }
    const isDeleted = deletedAt !== null;
    item.dataset.changed = String(changed);
    item.classList.toggle("deleted", isDeleted);
    part(item, "content").textContent = content;
    part(item, "tombstone").hidden = !isDeleted;
    const edited = part(item, "edited");
    edited.hidden = editedAt === null || isDeleted;
    edited.title = editedAt === null ? "" : fill(this.texts.editedAt, { time: completeTime(editedAt) });
    if (isDeleted) {
      for (const name of ["broadcast", "mention"]) {
        part(item, name).hidden = true;
      }
      item.classList.remove("mentions-me");
    }
    for (const answer of this.list.querySelectorAll(`[data-reply="${item.dataset.id}"]`)) {
      this.quote(/** @type {HTMLElement} */ (answer), Number(item.dataset.id));
    }
    this.showTools(item);
    item.dispatchEvent(new CustomEvent("message-changed", { bubbles: true }));
  }

  /** @param {Draft} draft Shown as on its way. */
  showUnsent({ clientId, content, replyTo }) {
    const item = fromTemplate("message-template");
    item.classList.add("own");
    item.dataset.clientId = clientId;
    part(item, "sender").textContent = this.me.username;
    part(item, "content").textContent = content;
    part(item, "tombstone").hidden = true;
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
      item.dataset.changed = String(message.seq);
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

  /**
   * Show a page instead of the history up to the page's end; what isn't sent stays.
   *
   * @param {HistoryPage} page
   */
  startOver({ seq, messages }) {
    for (const item of /** @type {NodeListOf<HTMLElement>} */ (this.list.querySelectorAll("[data-seq]"))) {
      if (Number(item.dataset.seq) <= seq) {
        item.remove();
      }
    }
    messages.forEach((message) => this.show(message));
    this.showQuotes();
  }

  /** The user is no longer in the room: nothing can be changed here any more. */
  close() {
    this.isClosed = true;
    this.showAllTools();
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
    const isDeleted = item.classList.contains("deleted");
    const characters = [...(isDeleted ? this.texts.wasDeleted : (part(item, "content").textContent ?? ""))];
    const text = characters.slice(0, QUOTED_CHARACTERS).join("");
    return {
      name: isolated(part(item, "sender").textContent ?? ""),
      text: isolated(characters.length > QUOTED_CHARACTERS ? `${text}…` : text),
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
    this.showTools(item);
  }

  /** @param {HTMLElement} item Offers what can be done with it. */
  showTools(item) {
    const isOwn = item.classList.contains("own");
    const isThere = item.dataset.seq !== undefined && !item.classList.contains("deleted") && !this.isClosed;
    const isFailed = item.classList.contains("failed");
    /** @type {{ [action: string]: boolean }} */
    const offered = {
      reply: isThere,
      edit: isThere && isOwn && this.mayStillEdit(item),
      delete: isThere && (isOwn || this.ownsRoom),
      retry: isFailed,
      discard: isFailed,
    };
    for (const button of /** @type {NodeListOf<HTMLElement>} */ (item.querySelectorAll(".tools [data-action]"))) {
      button.hidden = !offered[button.dataset.action ?? ""];
    }
  }

  showAllTools() {
    for (const item of /** @type {NodeListOf<HTMLElement>} */ (this.list.querySelectorAll(".message"))) {
      this.showTools(item);
    }
  }

  /** @param {HTMLElement} item */
  mayStillEdit(item) {
    const written = Date.parse(part(item, "time").getAttribute("datetime") ?? "");
    return this.editWindow === null || Date.now() - written < this.editWindow * 1000;
  }

  showEmptiness() {
    byId("no-messages").hidden = this.list.childElementCount > 0;
  }
}
