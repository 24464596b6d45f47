// @ts-check
import { MessagingClient, isNewMessage } from "./client.js";
import { readConfig, roomUrl, socketUrl } from "./page/config.js";
import { ConnectionLine } from "./page/connection.js";
import { byId, fill, fromTemplate, part, showText } from "./page/dom.js";
import { Notifications } from "./page/notifications.js";
import { localiseTimes, showTime } from "./page/times.js";

/** @typedef {import("./client/protocol.js").Message} Message */
/** @typedef {import("./client/protocol.js").Room} Room */

const config = readConfig();
const { me, texts } = config;
const client = new MessagingClient({ url: socketUrl(config.socket), positions: config.positions });
const list = byId("conversations");
/** @type {Map<number, Room>} All of the user's rooms; the page lists the first ones. */
const rooms = new Map();
localiseTimes(document);
new ConnectionLine(client, texts);
new Notifications(client, config);

/**
 * @param {number} room
 * @returns {HTMLElement | null}
 */
function find(room) {
  return list.querySelector(`[data-room="${room}"]`);
}

/**
 * @returns {Element | null} The first of the rooms at the end of the list in which nothing has happened.
 */
function firstUntouched() {
  let first = null;
  for (let item = list.lastElementChild; item instanceof HTMLElement; item = item.previousElementSibling) {
    if (item.dataset.untouched === undefined) {
      break;
    }
    first = item;
  }
  return first;
}

/**
 * Show a room where the server's list has it: one in which nothing has happened pushes no conversation down.
 * @param {Room} room
 */
function add({ id, name, seq }) {
  const isUntouched = seq === 0;
  if (find(id) !== null || (isUntouched && list.childElementCount >= config.conversationLimit)) {
    return;
  }
  const item = fromTemplate("conversation-template");
  item.dataset.room = String(id);
  /** @type {HTMLAnchorElement} */ (item.querySelector("a")).href = roomUrl(config, id);
  part(item, "name").textContent = name || texts.deletedUser;
  if (isUntouched) {
    item.dataset.untouched = "";
  }
  list.insertBefore(item, isUntouched ? firstUntouched() : list.firstElementChild);
  byId("no-conversations").hidden = true;
}

/**
 * @param {HTMLElement} item
 * @param {number} count
 */
function setUnread(item, count) {
  item.dataset.unread = String(count);
  item.classList.toggle("has-unread", count > 0);
  showText(part(item, "count"), count ? String(count) : "");
  part(item, "count-words").textContent = count ? fill(texts.unread, { count }) : "";
}

/**
 * @param {HTMLElement} item
 * @param {Message} message
 */
function showPreview(item, message) {
  item.dataset.last = String(message.id);
  part(item, "text").textContent = message.deleted_at === null ? message.content : texts.wasDeleted;
}

/**
 * @param {number} room
 * @param {Message} message Another state of an older one.
 */
function showChange(room, message) {
  const item = find(room);
  if (item === null) {
    return;
  }
  if (item.dataset.last === String(message.id)) {
    showPreview(item, message);
  }
  const isCounted = message.sender?.id !== me.id && message.seq > (rooms.get(room)?.read_seq ?? 0);
  if (message.deleted_at !== null && isCounted && Number(item.dataset.unread) < config.unreadLimit) {
    setUnread(item, Math.max(0, Number(item.dataset.unread) - 1));
  }
}

/**
 * @param {number} room
 * @param {Message} message
 */
function showLast(room, message) {
  const unlisted = rooms.get(room);
  if (unlisted !== undefined) {
    add(unlisted);
  }
  const item = find(room);
  if (item === null) {
    return;
  }
  const isOwn = message.sender?.id === me.id;
  part(item, "sender").textContent = isOwn ? texts.you : (message.sender?.username ?? texts.deletedUser);
  showPreview(item, message);
  /** @type {HTMLElement} */ (item.querySelector(".colon")).hidden = false;
  showTime(part(item, "time"), message.timestamp);
  setUnread(item, Number(item.dataset.unread) + (isOwn || message.deleted_at !== null ? 0 : 1));
  delete item.dataset.untouched;
  if (list.firstElementChild !== item) {
    list.prepend(item);
  }
}

/**
 * @param {string} name
 * @param {(frame: any) => void} listener
 */
function on(name, listener) {
  client.addEventListener(name, (event) => listener(/** @type {import("./client.js").ClientEvent} */ (event).detail));
}

on("hello", (hello) => {
  const isComplete = list.childElementCount < config.conversationLimit;
  for (const room of /** @type {Room[]} */ (hello.rooms)) {
    rooms.set(room.id, room);
    // Made between the page and its stream.
    if (isComplete && !(room.id in config.positions)) {
      add(room);
    }
  }
});
on("message", (frame) => (isNewMessage(frame) ? showLast : showChange)(frame.room, frame.message));
on("room", ({ room, name }) => {
  const known = rooms.get(room);
  if (known !== undefined) {
    known.name = name;
  }
  const item = find(room);
  if (item !== null) {
    part(item, "name").textContent = name;
  }
});
on("room_added", ({ room }) => {
  rooms.set(room.id, room);
  add(room);
});
on("room_removed", ({ room }) => {
  rooms.delete(room);
  find(room)?.remove();
});
on("read", ({ room, user, seq }) => {
  const item = find(room);
  const known = rooms.get(room);
  if (known !== undefined && user.id === me.id) {
    known.read_seq = Math.max(known.read_seq, seq);
  }
  if (item !== null && user.id === me.id && seq >= (client.position(room)?.seq ?? 0)) {
    setUnread(item, 0);
  }
});
// The server's page tells what the stream of events doesn't.
on("limited", () => location.reload());
on("reset", () => location.reload());

client.start();
