// @ts-check
/** @typedef {import("./protocol.js").Positions} Positions */
/** @typedef {import("./protocol.js").Position} Position */
/** @typedef {import("./protocol.js").Room} Room */

/** How far the client has got in each room's timeline. */
export class PositionTable {
  /** @param {Positions} [positions] */
  constructor(positions = {}) {
    /** @type {Map<number, Position>} */
    this.rooms = new Map(Object.entries(positions).map(([room, position]) => [Number(room), { ...position }]));
  }

  /**
   * @param {number} room
   * @returns {Position | undefined}
   */
  get(room) {
    return this.rooms.get(room);
  }

  /**
   * @param {number} room
   * @param {Position} position
   */
  set(room, position) {
    this.rooms.set(room, { ...position });
  }

  /** @param {number} room */
  delete(room) {
    this.rooms.delete(room);
  }

  /** @returns {Positions} The form that `resume` sends. */
  toJSON() {
    return Object.fromEntries(this.rooms);
  }

  /**
   * Let rooms that the client has never seen start at the server's head.
   *
   * @param {Room[]} rooms
   */
  adopt(rooms) {
    for (const { id, epoch, seq } of rooms) {
      if (!this.rooms.has(id)) {
        this.rooms.set(id, { epoch, seq });
      }
    }
  }

  /**
   * Move along with a frame of a room's timeline, which leads from `after` (one less than `seq` if not told) to `seq`.
   *
   * @param {{ room: number, seq: number, after?: number }} frame
   * @returns {"next" | "duplicate" | "gap"} Only `next` moved the position and is to be shown.
   */
  advance({ room, seq, after = seq - 1 }) {
    const position = this.rooms.get(room);
    if (position === undefined || after > position.seq) {
      return "gap";
    }
    if (seq <= position.seq) {
      return "duplicate";
    }
    if (after < position.seq) {
      return "gap";
    }
    position.seq = seq;
    return "next";
  }
}
