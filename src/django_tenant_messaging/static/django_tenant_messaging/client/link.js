// @ts-check
import { MessagingError, SUBPROTOCOL } from "./protocol.js";

/** @typedef {import("./protocol.js").Frame} Frame */

/**
 * @typedef {object} Clock
 * @property {(callback: () => void, ms: number) => any} setTimeout
 * @property {(timer: any) => void} clearTimeout
 *
 * @typedef {object} LinkOptions
 * @property {string} url
 * @property {new (url: string, protocols: string[]) => WebSocket} WebSocket
 * @property {Clock} clock
 * @property {(frame: Frame) => void} onFrame Called with every frame that answers no request.
 * @property {(code: number) => void} onClose Called once, also when the client itself gave the link up.
 */

const HELLO_TIMEOUT_MS = 15_000;
const REPLY_TIMEOUT_MS = 20_000;
/** What a `WebSocket` says while it can be written to. */
const OPEN = 1;
/** The close code of a link that ended without the server saying why. */
const LOST = 1006;

/** One socket from its opening to its end: pairs requests with replies and notices silence. */
export class Link {
  /** @param {LinkOptions} options */
  constructor({ url, WebSocket, clock, onFrame, onClose }) {
    this.clock = clock;
    this.onFrame = onFrame;
    this.onClose = onClose;
    this.ended = false;
    /** @type {Map<string, { resolve: (reply: Frame) => void, reject: (error: MessagingError) => void, timer: any }>} */
    this.pending = new Map();
    this.requests = 0;
    this.requestsBefore = 0;
    this.longestSilence = HELLO_TIMEOUT_MS;
    /** @type {any} */
    this.silence = null;
    this.socket = new WebSocket(url, [SUBPROTOCOL]);
    this.socket.onmessage = (event) => this.receive(event.data);
    this.socket.onclose = (event) => this.end(event.code);
    this.listen();
  }

  /**
   * Send a frame and wait for its one reply.
   *
   * @param {string} type
   * @param {{ [field: string]: any }} [fields]
   * @returns {Promise<Frame>} Rejects with a `MessagingError`.
   */
  request(type, fields = {}) {
    return new Promise((resolve, reject) => {
      if (this.ended) {
        reject(new MessagingError("disconnected", "The connection is lost."));
        return;
      }
      this.requests += 1;
      const id = `r${this.requests}`;
      const timer = this.clock.setTimeout(() => {
        this.pending.delete(id);
        reject(new MessagingError("timeout", "The server did not answer in time."));
      }, REPLY_TIMEOUT_MS);
      this.pending.set(id, { resolve, reject, timer });
      // One that is closing takes nothing more; its end, which is yet to be told, rejects what is pending.
      if (this.socket.readyState === OPEN) {
        this.socket.send(JSON.stringify({ ...fields, type, id }));
      }
    });
  }

  /** Whether nothing was sent since this was asked last. */
  wasSilent() {
    const before = this.requestsBefore;
    this.requestsBefore = this.requests;
    return this.requests === before;
  }

  /**
   * From now on a silence of the server longer than this means that the link is dead.
   *
   * @param {number} ms
   */
  expectSignsOfLife(ms) {
    this.longestSilence = ms;
    this.listen();
  }

  /** @param {number} [code] */
  end(code = LOST) {
    if (this.ended) {
      return;
    }
    this.ended = true;
    this.clock.clearTimeout(this.silence);
    // A dead link may take minutes to close: nobody waits for it.
    this.socket.onmessage = null;
    this.socket.onclose = null;
    this.socket.close();
    for (const { reject, timer } of this.pending.values()) {
      this.clock.clearTimeout(timer);
      reject(new MessagingError("disconnected", "The connection is lost."));
    }
    this.pending.clear();
    this.onClose(code);
  }

  /** @param {unknown} data */
  receive(data) {
    this.listen();
    const frames = parse(data);
    if (frames.length === 0) {
      this.end();
    }
    for (const frame of frames) {
      if (frame.type === "ok" || frame.type === "error") {
        this.settle(frame);
      } else if (!this.ended) {
        this.onFrame(frame);
      }
    }
  }

  /** @param {Frame} reply */
  settle(reply) {
    const waiting = this.pending.get(reply.id ?? "");
    if (waiting === undefined) {
      return;
    }
    this.pending.delete(reply.id ?? "");
    this.clock.clearTimeout(waiting.timer);
    if (reply.type === "ok") {
      waiting.resolve(reply);
    } else {
      waiting.reject(new MessagingError(reply.code, reply.message, reply.details));
    }
  }

  listen() {
    this.clock.clearTimeout(this.silence);
    this.silence = this.clock.setTimeout(() => this.end(), this.longestSilence);
  }
}

/**
 * @param {unknown} data
 * @returns {Frame[]} Empty for what no server of this protocol sends, such as a captive portal's page.
 */
function parse(data) {
  try {
    const frames = [JSON.parse(String(data))].flat();
    return frames.every((frame) => typeof frame?.type === "string") ? frames : [];
  } catch {
    return [];
  }
}
