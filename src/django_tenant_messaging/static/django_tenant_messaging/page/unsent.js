// @ts-check
/** @typedef {import("./messages.js").Draft} Draft */

/** Keeps what isn't sent over a reload of the page; under its client id it is stored once, however often it is sent. */
export class UnsentStore {
  /** @param {{ room: number, me: { id: string } }} config */
  constructor({ room, me }) {
    this.key = `tenant-messaging:unsent:${me.id}:${room}`;
  }

  /** @returns {Draft[]} */
  all() {
    try {
      return JSON.parse(sessionStorage.getItem(this.key) ?? "[]");
    } catch {
      return [];
    }
  }

  /** @param {Draft} draft */
  keep(draft) {
    this.write([...this.all().filter(({ clientId }) => clientId !== draft.clientId), draft]);
  }

  /** @param {string} clientId */
  forget(clientId) {
    this.write(this.all().filter((draft) => draft.clientId !== clientId));
  }

  /** @param {Draft[]} drafts */
  write(drafts) {
    try {
      sessionStorage.setItem(this.key, JSON.stringify(drafts));
    } catch {
      // Storage may be full or switched off: then a reload loses what isn't sent, as on any page.
    }
  }
}
