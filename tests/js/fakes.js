// @ts-check
import { webcrypto } from "node:crypto";

import { ClientEvent, MessagingClient } from "../../src/django_tenant_messaging/static/django_tenant_messaging/client.js";

// Node 18 doesn't offer it as a global, as browsers do.
globalThis.crypto ??= /** @type {Crypto} */ (webcrypto);

/** Time that stands still until it is told to pass. */
export class FakeClock {
  now = 0;
  /** @type {Map<number, { at: number, callback: () => void }>} */
  timers = new Map();
  last = 0;

  /** @type {(callback: () => void, ms: number) => number} */
  setTimeout = (callback, ms) => {
    this.last += 1;
    this.timers.set(this.last, { at: this.now + ms, callback });
    return this.last;
  };

  /** @type {(timer: number) => void} */
  clearTimeout = (timer) => {
    this.timers.delete(timer);
  };

  /** @param {number} ms */
  async pass(ms) {
    const end = this.now + ms;
    for (;;) {
      await settled();
      const due = [...this.timers].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at)[0];
      if (due === undefined) {
        break;
      }
      const [timer, { at, callback }] = due;
      this.timers.delete(timer);
      this.now = at;
      callback();
    }
    this.now = end;
    await settled();
  }
}

/** Let everything run that waits for no timer. */
export function settled() {
  return new Promise((resolve) => setImmediate(resolve));
}

/** The server's end of a socket, played by the test. */
export class FakeSocket {
  /** @type {((event: { data: string }) => void) | null} */
  onmessage = null;
  /** @type {((event: { code: number }) => void) | null} */
  onclose = null;
  closed = false;
  readyState = 1;
  /** @type {any[]} */
  sent = [];

  /**
   * @param {string} url
   * @param {string[]} protocols
   */
  constructor(url, protocols) {
    this.url = url;
    this.protocols = protocols;
  }

  /** @param {string} text */
  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.closed = true;
  }

  /** @param {object} frame */
  async says(frame) {
    this.onmessage?.({ data: JSON.stringify(frame) });
    await settled();
  }

  /** @param {number} code */
  async drops(code) {
    this.onclose?.({ code });
    await settled();
  }

  /** @param {string} type */
  requests(type) {
    return this.sent.filter((frame) => frame.type === type);
  }

  /**
   * Answer the newest request of a type.
   *
   * @param {string} type
   * @param {object} [result]
   */
  async answers(type, result = {}) {
    await this.says({ type: "ok", ...result, id: this.requests(type).at(-1).id });
  }

  /**
   * @param {string} type
   * @param {string} code
   * @param {object} [details]
   */
  async refuses(type, code, details = {}) {
    const { id } = this.requests(type).at(-1);
    await this.says({ type: "error", id, code, message: "No.", details });
  }
}

/** @param {{ [field: string]: any }} [fields] */
export function room(fields = {}) {
  return { id: 1, kind: "group", name: "general", epoch: "e1", seq: 10, read_seq: 10, ...fields };
}

/** @param {any[]} rooms */
export function hello(rooms = [room()]) {
  const user = { id: "1", username: "alice" };
  return {
    type: "hello",
    protocol: "tenant-messaging.v1",
    user,
    heartbeat_interval: 25,
    max_content_length: 10_000,
    rooms,
    online: [],
    online_limited: false,
  };
}

/**
 * @param {number} seq
 * @param {{ [field: string]: any }} [fields]
 */
export function message(seq, fields = {}) {
  return { type: "message", room: 1, seq, message: { id: 100 + seq, seq, content: `message ${seq}` }, ...fields };
}

/** A client with everything around it in the test's hand. */
export class Stage {
  /** @type {FakeSocket[]} */
  sockets = [];
  clock = new FakeClock();
  /** @type {{ name: string, detail: any }[]} */
  events = [];

  /**
   * @param {{ positions?: import("../../src/django_tenant_messaging/static/django_tenant_messaging/client/protocol.js").Positions,
   *   random?: () => number }} [options]
   */
  constructor({ positions, random = () => 0.5 } = {}) {
    const sockets = this.sockets;
    class Socket extends FakeSocket {
      /**
       * @param {string} url
       * @param {string[]} protocols
       */
      constructor(url, protocols) {
        super(url, protocols);
        sockets.push(this);
      }
    }
    const WebSocket = /** @type {any} */ (Socket);
    this.client = new MessagingClient({ url: "ws://test/", positions, WebSocket, clock: this.clock, random });
    for (const name of ["status", "message", "members", "room", "limited", "reset", "room_added", "room_removed", "typing"]) {
      this.client.addEventListener(name, (event) => {
        this.events.push({ name, detail: /** @type {ClientEvent} */ (event).detail });
      });
    }
  }

  get socket() {
    return /** @type {FakeSocket} */ (this.sockets.at(-1));
  }

  /**
   * The details of the events of a name so far.
   *
   * @param {string} name
   */
  seen(name) {
    return this.events.filter((event) => event.name === name).map(({ detail }) => detail);
  }

  /** The `seq` of the messages so far. */
  messages() {
    return this.seen("message").map(({ seq }) => seq);
  }

  /**
   * Start, greet and resume.
   *
   * @param {any[]} [rooms]
   * @param {object} [resumed]
   */
  async open(rooms, resumed = {}) {
    this.client.start();
    await this.greet(rooms, resumed);
    return this;
  }

  /**
   * @param {any[]} [rooms]
   * @param {object} [resumed]
   */
  async greet(rooms, resumed = {}) {
    await this.socket.says(hello(rooms));
    await this.socket.answers("resume", { rooms: resumed });
  }

  /** Lose the connection and wait until the next attempt. */
  async reconnect() {
    await this.socket.drops(1006);
    await this.clock.pass(30_000);
  }
}
