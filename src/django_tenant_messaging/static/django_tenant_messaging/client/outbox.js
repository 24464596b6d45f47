// @ts-check
import { MessagingError } from "./protocol.js";

/** @typedef {import("./protocol.js").SendReceipt} SendReceipt */
/** @typedef {import("./link.js").Link} Link */
/** @typedef {import("./link.js").Clock} Clock */

/**
 * @typedef {object} Unsent
 * @property {{ room: number, client_id: string, content: string, reply_to: number | null }} fields
 * @property {(receipt: SendReceipt) => void} resolve
 * @property {(error: MessagingError) => void} reject
 */

const RESEND_MS = 2_000;

/** The messages that the server hasn't answered for. Each goes out under one client id, so it is stored once. */
export class Outbox {
  /** @param {Clock} clock */
  constructor(clock) {
    this.clock = clock;
    /** @type {Map<string, Unsent>} */
    this.unsent = new Map();
    /** @type {Link | null} */
    this.link = null;
    /** @type {any} */
    this.timer = null;
  }

  /**
   * @param {Unsent["fields"]} fields
   * @returns {Promise<SendReceipt>}
   */
  send(fields) {
    return new Promise((resolve, reject) => {
      const message = { fields, resolve, reject };
      this.unsent.set(fields.client_id, message);
      if (this.link !== null) {
        this.transmit(message, this.link);
      }
    });
  }

  /**
   * Send everything over a fresh link, and what comes from now on.
   *
   * @param {Link} link
   */
  open(link) {
    this.link = link;
    for (const message of this.unsent.values()) {
      this.transmit(message, link);
    }
  }

  /** Keep everything for the next link. */
  close() {
    this.link = null;
    this.clock.clearTimeout(this.timer);
    this.timer = null;
  }

  /** @param {MessagingError} error */
  giveUp(error) {
    for (const { reject } of this.unsent.values()) {
      reject(error);
    }
    this.unsent.clear();
  }

  /**
   * @param {Unsent} message
   * @param {Link} link
   */
  async transmit(message, link) {
    try {
      const receipt = await link.request("send", message.fields);
      this.unsent.delete(message.fields.client_id);
      message.resolve(/** @type {SendReceipt} */ (/** @type {unknown} */ (receipt)));
    } catch (error) {
      this.refused(message, link, /** @type {MessagingError} */ (error));
    }
  }

  /**
   * @param {Unsent} message
   * @param {Link} link
   * @param {MessagingError} error
   */
  refused(message, link, error) {
    if (error.code === "timeout") {
      link.end();
    } else if (error.code === "unavailable" || error.code === "tenant_not_ready") {
      this.resendSoon(link, RESEND_MS);
    } else if (error.code === "rate_limited") {
      this.resendSoon(link, 1_000 * error.details.retry_after);
    } else if (error.code !== "disconnected") {
      this.unsent.delete(message.fields.client_id);
      message.reject(error);
    }
  }

  /**
   * @param {Link} link
   * @param {number} delay Milliseconds.
   */
  resendSoon(link, delay) {
    if (this.timer === null && this.link === link) {
      this.timer = this.clock.setTimeout(() => {
        this.timer = null;
        this.open(link);
      }, delay);
    }
  }
}
