// @ts-check
import { byId } from "./dom.js";

/** @typedef {import("../client/protocol.js").UserRef} UserRef */
/** @typedef {import("../client/protocol.js").Positions} Positions */

/**
 * @typedef {object} Texts
 * @property {string} connecting
 * @property {string} lost
 * @property {string} retryIn
 * @property {string} recovered
 * @property {{ other: string, [reason: string]: string }} closed
 * @property {string} allMembers
 * @property {string} mentionsYou
 * @property {string} mentions
 * @property {string} deletedUser
 * @property {string} you
 * @property {string} sending
 * @property {string} failed
 * @property {string} isTyping
 * @property {string} areTyping
 * @property {string} answersEarlier
 * @property {string} answer
 * @property {string} online
 * @property {string} offline
 * @property {string} unread
 * @property {string} removed
 * @property {string} newNotification
 * @property {string} historyFailed
 * @property {string} wasDeleted
 * @property {string} editedAt
 * @property {string} notSaved
 * @property {string} notDeleted
 * @property {string} notRenamed
 * @property {string} noVersions
 * @property {string} pageTitle
 * @property {string} nameRule
 * @property {{ [code: string]: string }} errors
 * @property {string} otherError
 *
 * @typedef {object} Members What the page shows of a room's members.
 * @property {number} number How many there are.
 * @property {number} mostCounted Where counting stopped.
 * @property {boolean} areAll Whether the page shows them all.
 * @property {boolean} tellsPresence Whether the server tells who of them comes and goes.
 *
 * @typedef {object} Config What the server tells the page's module.
 * @property {string} socket
 * @property {UserRef} me
 * @property {Positions} positions
 * @property {{ id: number, room: number | null, message: number | null }[]} notifications The unread ones.
 * @property {string} roomUrl The address of room 0.
 * @property {Texts} texts
 * @property {number} conversationLimit Of the list of conversations.
 * @property {number} unreadLimit Of the list of conversations: where counting stops.
 * @property {number} room Of a room's page.
 * @property {number} readSeq Of a room's page.
 * @property {Members} members Of a room's page.
 * @property {boolean} ownsRoom Of a room's page: whether the user may delete what others wrote.
 * @property {number | null} editWindow Of a room's page: for how many seconds a message may be edited.
 */

/** @returns {Config} */
export function readConfig() {
  return JSON.parse(byId("messaging-config").textContent ?? "");
}

/** @param {string} path */
export function socketUrl(path) {
  const url = new URL(path, location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}

/**
 * @param {Config} config
 * @param {number} room
 */
export function roomUrl(config, room) {
  return config.roomUrl.replace(/\/0\/$/, `/${room}/`);
}

/**
 * @param {Texts} texts
 * @param {unknown} error
 */
export function reasonOf(texts, error) {
  const code = /** @type {{ code?: string }} */ (error).code ?? "";
  return texts.errors[code] ?? texts.otherError;
}
