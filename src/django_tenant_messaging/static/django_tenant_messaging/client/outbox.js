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
/** Most messages on their way at once. More would only wait with the server, and be repeated when it is slow. */
const MOST_ON_THEIR_WAY = 16;

/** The messages that the server hasn't answered for. Each goes out under one client id, so it is stored once. */
export class Outbox {
  /** @param {Clock} clock */
  constructor(clock) {
    this.clock = clock;
    /** @type {Map<string, Unsent>} */
    this.unsent = new Map();
    /** @type {Set<Unsent>} */
    this.onTheirWay = new Set();
    /** @type {Link | null} */
    this.link = null;
    /** @type {any} Runs while the server takes nothing. */
    this.pause = null;
  }

  /**
   * @param {Unsent["fields"]} fields
   * @returns {Promise<SendReceipt>}
   */
  send(fields) {
    return new Promise((resolve, reject) => {
      this.unsent.set(fields.client_id, { fields, resolve, reject });
      this.transmit();
    });
  }

  /**
   * Send everything over a fresh link, and what comes from now on.
   *
   * @param {Link} link
   */
  open(link) {
    this.link = link;
    this.transmit();
  }

  /** Keep everything for the next link. */
  close() {
    this.link = null;
    this.onTheirWay.clear();
    this.clock.clearTimeout(this.pause);
    this.pause = null;
  }

  /** @param {MessagingError} error */
  giveUp(error) {
    for (const { reject } of this.unsent.values()) {
      reject(error);
    }
    this.unsent.clear();
  }

  /** Send what waits, in its order, as far as it may go now. */
  transmit() {
    for (const message of this.unsent.values()) {
      if (this.link === null || this.pause !== null || this.onTheirWay.size >= MOST_ON_THEIR_WAY) {
        return;
      }
      if (!this.onTheirWay.has(message)) {
        this.onTheirWay.add(message);
        this.ask(message, this.link);
      }
    }
  }

  /**
   * @param {Unsent} message
   * @param {Link} link
   */
  async ask(message, link) {
    try {
      const receipt = await link.request("send", message.fields);
      this.unsent.delete(message.fields.client_id);
      message.resolve(/** @type {SendReceipt} */ (/** @type {unknown} */ (receipt)));
    } catch (error) {
      this.refused(message, link, /** @type {MessagingError} */ (error));
    }
    if (this.link === link) {
      this.onTheirWay.delete(message);
      this.transmit();
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
    } else if (error.code === "rate_limited") {
      this.pauseFor(1_000 * error.details.retry_after, link);
    } else if (error.code === "unavailable" || error.code === "tenant_not_ready") {
      this.pauseFor(RESEND_MS, link);
    } else if (error.code !== "disconnected") {
      this.unsent.delete(message.fields.client_id);
      message.reject(error);
    }
  }

  /**
   * @param {number} ms
   * @param {Link} link
   */
  pauseFor(ms, link) {
    if (this.pause === null && this.link === link) {
      this.pause = this.clock.setTimeout(() => {
        this.pause = null;
        this.transmit();
      }, ms);
    }
  }
}
