// @ts-check
/**
 * The client side of the protocol `tenant-messaging.v1`, for browsers and for any JavaScript with a `WebSocket`.
 *
 * It keeps one socket open, resumes from its positions after a loss, and delivers every event once and in order.
 * A message given to `send()` is sent until the server has answered for it, under one client id: it arrives once.
 *
 * Events, each a {@link ClientEvent} with the server's frame as `detail`: `hello`, `message`, `members`, `room`, `typing`,
 * `read`, `presence`, `notification`, `room_added`, `room_removed`. A `message` is one that is new, or the newer state of
 * an older one, which it replaces: {@link isNewMessage} tells which. And of the client itself:
 * - `status`: a {@link Status};
 * - `limited` `{room, after, seq}`: more was missed than a resume sends, or the room is one of so many that the server no
 *   longer follows it; read what follows `after` by `history()`, which lets its events come again;
 * - `reset` `{room, seq}`: the room has another history now; drop what you hold and read it again.
 */
import { Backoff } from "./client/backoff.js";
import { Link } from "./client/link.js";
import { Outbox } from "./client/outbox.js";
import { PositionTable } from "./client/positions.js";
import { MessagingError, finalReason, isNewMessage, newClientId } from "./client/protocol.js";

export { MessagingError, isNewMessage, newClientId };

/** @typedef {import("./client/protocol.js").Frame} Frame */
/** @typedef {import("./client/protocol.js").Room} Room */
/** @typedef {import("./client/protocol.js").Position} Position */
/** @typedef {import("./client/protocol.js").Positions} Positions */
/** @typedef {import("./client/protocol.js").SendReceipt} SendReceipt */
/** @typedef {import("./client/protocol.js").ChangeReceipt} ChangeReceipt */
/** @typedef {import("./client/protocol.js").Revision} Revision */
/** @typedef {import("./client/protocol.js").HistoryPage} HistoryPage */
/** @typedef {import("./client/protocol.js").ClosedReason} ClosedReason */
/** @typedef {import("./client/link.js").Clock} Clock */

/**
 * @typedef {{ state: "idle" | "connecting" | "open" }
 *   | { state: "lost", code: number, retryIn: number }
 *   | { state: "closed", code: number, reason: ClosedReason }} Status `retryIn` is in milliseconds.
 */

/** A head that the position doesn't reach within this time was lost on its way. */
const LOSS_GRACE_MS = 5_000;
/** After so long without trouble the next loss is a first one again. */
const STABLE_MS = 10_000;
/** However often the server's heart beats, a network may pause for so long. */
const SHORTEST_SILENCE_MS = 5_000;
/** Keeps a resume well under the server's largest frame; further rooms are reported as `limited`. */
const MOST_RESUMED_ROOMS = 500;
const TIMELINE = new Set(["message", "members", "room", "skip"]);
const PASSED_ON = new Set(["typing", "read", "presence", "notification"]);

export class ClientEvent extends Event {
  /**
   * @param {string} name
   * @param {any} detail
   */
  constructor(name, detail) {
    super(name);
    this.detail = detail;
  }
}

export class MessagingClient extends EventTarget {
  /** @type {Status} */
  #status = { state: "idle" };
  /** @type {Link | null} */
  #link = null;
  /** @type {PositionTable} */
  #positions;
  /** @type {Outbox} */
  #outbox;
  /** @type {Frame[] | null} Frames that came before the answer to `resume`. */
  #held = null;
  /** @type {{ [name: string]: any }} */
  #timers = {};

  /**
   * @param {object} options
   * @param {string} options.url
   * @param {Positions} [options.positions] How far each room is known already, such as by a page the server rendered.
   * @param {new (url: string, protocols: string[]) => WebSocket} [options.WebSocket]
   * @param {Clock} [options.clock]
   * @param {() => number} [options.random]
   */
  constructor({ url, positions = {}, WebSocket = globalThis.WebSocket, clock = systemClock, random = Math.random }) {
    super();
    this.url = url;
    this.WebSocket = WebSocket;
    this.clock = clock;
    this.backoff = new Backoff(random);
    this.#positions = new PositionTable(positions);
    this.#outbox = new Outbox(clock);
    /** @type {import("./client/protocol.js").UserRef | null} */
    this.user = null;
    /** @type {number | null} In characters (code points), once the server has told. */
    this.maxContentLength = null;
  }

  /** @returns {Status} */
  get status() {
    return this.#status;
  }

  /**
   * @param {number} room
   * @returns {Position | undefined}
   */
  position(room) {
    const position = this.#positions.get(room);
    return position && { ...position };
  }

  start() {
    if (this.#status.state === "idle") {
      this.#connect();
    }
  }

  /** Close for good. Messages that weren't acknowledged are rejected with the code `closed`. */
  stop() {
    this.#finish(1000, "stopped");
  }

  /** Connect now rather than at the end of the wait, as when the device is back online. */
  retryNow() {
    if (this.#status.state === "lost") {
      this.#connect();
    }
  }

  /**
   * Send a message, now or when there is a connection again.
   *
   * @param {number} room
   * @param {string} content
   * @param {{ replyTo?: number | null, clientId?: string }} [options] `clientId` repeats an earlier attempt.
   * @returns {Promise<SendReceipt>} When it is stored. Rejects with a `MessagingError` when the server refuses it.
   */
  async send(room, content, { replyTo = null, clientId = newClientId() } = {}) {
    if (this.#status.state === "closed") {
      throw new MessagingError("closed", "The connection is closed.", { reason: this.#status.reason });
    }
    return this.#outbox.send({ room, client_id: clientId, content, reply_to: replyTo });
  }

  /**
   * Give a message another text. After an error that leaves it open whether it succeeded, it may be repeated.
   *
   * @param {number} room
   * @param {number} messageId
   * @param {string} content
   * @returns {Promise<ChangeReceipt>}
   */
  async edit(room, messageId, content) {
    const receipt = await this.#request("edit", { room, message_id: messageId, content });
    return /** @type {ChangeReceipt} */ (/** @type {unknown} */ (receipt));
  }

  /**
   * Delete a message for everybody; it may be repeated.
   *
   * @param {number} room
   * @param {number} messageId
   * @returns {Promise<ChangeReceipt>}
   */
  async delete(room, messageId) {
    const receipt = await this.#request("delete", { room, message_id: messageId });
    return /** @type {ChangeReceipt} */ (/** @type {unknown} */ (receipt));
  }

  /**
   * @param {number} room
   * @param {number} messageId
   * @param {{ before?: number, limit?: number }} [part] None is the newest versions.
   * @returns {Promise<Revision[]>} What the message said before its edits, oldest first.
   */
  async revisions(room, messageId, part = {}) {
    return (await this.#request("revisions", { room, message_id: messageId, ...part })).revisions;
  }

  /**
   * @param {number} room
   * @param {string} name
   * @returns {Promise<string>} The name as it is stored.
   */
  async rename(room, name) {
    return (await this.#request("rename", { room, name })).name;
  }

  /**
   * @param {number} room
   * @param {{ before?: number, after?: number, around?: number, limit?: number }} [place] None is the newest page.
   * @returns {Promise<HistoryPage>}
   */
  async history(room, place = {}) {
    return /** @type {HistoryPage} */ (/** @type {unknown} */ (await this.#request("history", { room, ...place })));
  }

  /**
   * @param {number} room
   * @param {number} seq
   */
  async markRead(room, seq) {
    await this.#request("read", { room, seq });
  }

  /**
   * @param {number} room
   * @param {boolean} isTyping
   */
  async setTyping(room, isTyping) {
    await this.#request("typing", { room, is_typing: isTyping });
  }

  /**
   * @param {string} type
   * @param {{ [field: string]: any }} fields
   */
  async #request(type, fields) {
    if (this.#link === null || this.#status.state !== "open") {
      throw new MessagingError("disconnected", "There is no connection.");
    }
    return this.#link.request(type, fields);
  }

  #connect() {
    this.#clear("retry");
    this.#held = [];
    this.#setStatus({ state: "connecting" });
    this.#link = new Link({
      url: this.url,
      WebSocket: this.WebSocket,
      clock: this.clock,
      onFrame: (frame) => this.#receive(frame),
      onClose: (code) => this.#lost(code),
    });
  }

  /** @param {number} code */
  #lost(code) {
    const wasOpen = this.#status.state === "open";
    this.#link = null;
    this.#outbox.close();
    this.#clear("stable", "loss");
    const reason = finalReason(code);
    // Another tab may have changed the password, or logged in again: this browser's session is another one then.
    if (reason !== null && !(reason === "unauthenticated" && wasOpen)) {
      this.#finish(code, reason);
      return;
    }
    if (this.#status.state === "closed") {
      return;
    }
    const retryIn = this.backoff.next();
    this.#timers.retry = this.clock.setTimeout(() => this.#connect(), retryIn);
    this.#setStatus({ state: "lost", code, retryIn });
  }

  /**
   * @param {number} code
   * @param {ClosedReason} reason
   */
  #finish(code, reason) {
    if (this.#status.state === "closed") {
      return;
    }
    this.#setStatus({ state: "closed", code, reason });
    this.#clear("retry");
    this.#link?.end(code);
    this.#outbox.giveUp(new MessagingError("closed", "The connection is closed.", { reason }));
  }

  /** @param {Frame} frame */
  #receive(frame) {
    if (frame.type === "hello") {
      this.#greet(frame);
    } else if (frame.type === "heartbeat") {
      this.#compareHeads(frame.heads);
    } else if (this.#held !== null) {
      this.#held.push(frame);
    } else {
      this.#deliver(frame);
    }
  }

  /** @param {Frame} frame */
  #deliver(frame) {
    // A change of a kind that came later moves the position all the same.
    if (TIMELINE.has(frame.type) || frame.after !== undefined) {
      this.#follow(/** @type {Frame & { room: number, seq: number }} */ (frame));
    } else if (frame.type === "room_added") {
      this.#positions.adopt([/** @type {Room} */ (/** @type {unknown} */ (frame.room))]);
      this.#emit("room_added", frame);
    } else if (frame.type === "room_removed") {
      this.#positions.delete(frame.room ?? 0);
      this.#emit("room_removed", frame);
    } else if (PASSED_ON.has(frame.type)) {
      this.#emit(frame.type, frame);
    }
  }

  /** @param {Frame & { room: number, seq: number }} frame */
  #follow(frame) {
    const outcome = this.#positions.advance(frame);
    if (outcome === "gap") {
      this.#link?.end();
    } else if (outcome === "next" && frame.type !== "skip") {
      this.#emit(frame.type, frame);
    }
  }

  /** @param {Frame} hello */
  async #greet(hello) {
    const link = this.#link;
    if (link === null) {
      return;
    }
    this.user = hello.user;
    this.maxContentLength = hello.max_content_length;
    link.expectSignsOfLife(Math.max(SHORTEST_SILENCE_MS, 2_000 * hello.heartbeat_interval));
    this.#emit("hello", hello);
    const { positions, limited } = this.#compareRooms(hello);
    let reply;
    try {
      reply = await link.request("resume", { positions });
    } catch {
      link.end();
      return;
    }
    if (link.ended) {
      return;
    }
    for (const room of limited) {
      this.#restart(room, { status: "limited", seq: room.seq });
    }
    for (const room of /** @type {Room[]} */ (hello.rooms)) {
      this.#restart(room, reply.rooms?.[room.id]);
    }
    this.#timers.stable = this.clock.setTimeout(() => this.backoff.reset(), STABLE_MS);
    this.#outbox.open(link);
    this.#setStatus({ state: "open" });
    this.#release();
  }

  /**
   * Compare the server's rooms with the known ones. Where the user is in too many, what isn't listed isn't gone.
   *
   * @param {Frame} hello
   * @returns {{ positions: Positions, limited: Room[] }} What to resume, and the rooms that are too many for it.
   */
  #compareRooms({ rooms, rooms_limited: isLimited }) {
    const listed = new Set(rooms.map(({ id }) => id));
    for (const [room, { seq }] of this.#positions.rooms) {
      if (!listed.has(room)) {
        this.#positions.delete(room);
        const limited = { type: "limited", room, after: seq, seq };
        this.#emit(isLimited ? "limited" : "room_removed", isLimited ? limited : { type: "room_removed", room });
      }
    }
    const changed = rooms.filter(({ id, epoch, seq }) => {
      const known = this.#positions.get(id);
      return known !== undefined && (known.epoch !== epoch || known.seq !== seq);
    });
    this.#positions.adopt(rooms);
    const resumed = changed.slice(0, MOST_RESUMED_ROOMS);
    return {
      positions: Object.fromEntries(resumed.map(({ id }) => [id, /** @type {Position} */ (this.position(id))])),
      limited: changed.slice(MOST_RESUMED_ROOMS),
    };
  }

  /**
   * @param {Room} room
   * @param {{ status: "ok" | "limited" | "reset" | "gone", seq: number } | undefined} outcome
   */
  #restart({ id, epoch }, outcome) {
    if (outcome === undefined || outcome.status === "ok") {
      return;
    }
    if (outcome.status === "gone") {
      this.#positions.delete(id);
      this.#emit("room_removed", { type: "room_removed", room: id });
      return;
    }
    const { status, seq } = outcome;
    const after = this.#positions.get(id)?.seq ?? 0;
    this.#positions.set(id, { epoch, seq });
    this.#emit(status, { type: status, room: id, after, seq });
  }

  #release() {
    const held = this.#held ?? [];
    this.#held = null;
    for (const frame of held) {
      this.#deliver(frame);
    }
  }

  /** @param {{ [room: string]: number }} heads */
  #compareHeads(heads) {
    const link = this.#link;
    if (link?.wasSilent()) {
      // Being told that it was too much is an answer too.
      link.request("ping").catch((error) => error.code === "rate_limited" || link.end());
    }
    const behind = () =>
      Object.entries(heads).some(([room, head]) => head > (this.#positions.get(Number(room))?.seq ?? Infinity));
    if (behind() && this.#timers.loss === undefined) {
      this.#timers.loss = this.clock.setTimeout(() => {
        this.#clear("loss");
        if (behind()) {
          link?.end();
        }
      }, LOSS_GRACE_MS);
    }
  }

  /** @param {string[]} names */
  #clear(...names) {
    for (const name of names) {
      this.clock.clearTimeout(this.#timers[name]);
      delete this.#timers[name];
    }
  }

  /** @param {Status} status */
  #setStatus(status) {
    this.#status = status;
    this.#emit("status", status);
  }

  /**
   * @param {string} name
   * @param {object} detail
   */
  #emit(name, detail) {
    this.dispatchEvent(new ClientEvent(name, detail));
  }
}

/** @type {Clock} */
const systemClock = {
  setTimeout: (callback, ms) => setTimeout(callback, ms),
  clearTimeout: (timer) => clearTimeout(timer),
};
