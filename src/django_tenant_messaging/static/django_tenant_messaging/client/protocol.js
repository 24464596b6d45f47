// @ts-check
/**
 * The vocabulary of the protocol `tenant-messaging.v1`.
 *
 * @typedef {{ id: string, username: string }} UserRef
 * @typedef {{ id: number, seq: number }} ReplyRef
 * @typedef {{ epoch: string, seq: number }} Position
 * @typedef {{ [room: string]: Position }} Positions
 *
 * @typedef {object} Room A room as its member sees it.
 * @property {number} id
 * @property {"direct" | "group"} kind
 * @property {string} name
 * @property {string} epoch Changes when the server's history is another one.
 * @property {number} seq The head of the room's timeline.
 * @property {number} read_seq
 *
 * @typedef {object} Message
 * @property {number} id
 * @property {number} seq
 * @property {number} changed_seq The position of its last change; of two states the higher one is the newer.
 * @property {string} client_id
 * @property {UserRef | null} sender `null` once the user was deleted.
 * @property {UserRef | null} receiver
 * @property {string} content Empty once it was deleted.
 * @property {string} timestamp ISO 8601, UTC.
 * @property {ReplyRef | null} reply_to
 * @property {UserRef[]} mentioned_users
 * @property {boolean} is_broadcast Addressed to the whole room.
 * @property {boolean} is_read
 * @property {string | null} edited_at
 * @property {string | null} deleted_at
 * @property {boolean} is_own_message
 *
 * @typedef {object} Notification
 * @property {number} id
 * @property {string} text
 * @property {number | null} room
 * @property {number | null} message_id
 * @property {string} created_at
 * @property {boolean} is_read
 *
 * @typedef {object} SendReceipt
 * @property {number} room
 * @property {{ id: number, seq: number, client_id: string, timestamp: string }} message
 * @property {boolean} duplicate The server had this message already.
 *
 * @typedef {object} ChangeReceipt What an edit or a deletion made of a message.
 * @property {number} room
 * @property {{ id: number, seq: number, changed_seq: number, edited_at: string | null, deleted_at: string | null }} message
 *
 * @typedef {{ id: number, content: string, written_at: string, replaced_at: string }} Revision
 *
 * @typedef {object} HistoryPage
 * @property {number} room
 * @property {number} seq The room's head when the page was read.
 * @property {Message[]} messages Ascending by `seq`.
 * @property {boolean} has_before
 * @property {boolean} has_after
 *
 * @typedef {{ type: string, id?: string | null, room?: number, seq?: number, after?: number, [field: string]: any }} Frame
 */

export const SUBPROTOCOL = "tenant-messaging.v1";

/** Why a socket was closed for good, by its close code; every other code is worth another try. */
export const FINAL_CLOSE_CODES = /** @type {const} */ ({
  4400: "bad_frames",
  4401: "unauthenticated",
  4403: "forbidden",
  4404: "unknown_tenant",
  4406: "unsupported_protocol",
  4413: "frame_too_large",
});

/** @typedef {(typeof FINAL_CLOSE_CODES)[keyof typeof FINAL_CLOSE_CODES] | "stopped"} ClosedReason */

/**
 * @param {number} code
 * @returns {ClosedReason | null} `null` when the connection is worth another try.
 */
export function finalReason(code) {
  return FINAL_CLOSE_CODES[/** @type {keyof typeof FINAL_CLOSE_CODES} */ (code)] ?? null;
}

/**
 * What the server refused, or what kept it from answering.
 *
 * `code` is one of the protocol's error codes, or of the client itself: `disconnected`, `timeout`, `closed`.
 */
export class MessagingError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {{ [name: string]: any }} [details]
   */
  constructor(code, message, details = {}) {
    super(message);
    this.name = "MessagingError";
    this.code = code;
    this.details = details;
  }
}

/**
 * @param {Frame} frame A `message` frame.
 * @returns {boolean} Whether its message is one that the client hasn't had; else it is a newer state of an older one.
 */
export function isNewMessage({ message, seq = 0, after = seq - 1 }) {
  return message.seq > after;
}

/**
 * @returns {string} A random UUID; `crypto.randomUUID` is missing on pages that came over plain HTTP.
 */
export function newClientId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
