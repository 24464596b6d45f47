// @ts-check
import { byId, fill, part, showText } from "./dom.js";

/** @typedef {import("../client.js").MessagingClient} MessagingClient */
/** @typedef {import("./config.js").Texts} Texts */

const RECOVERED_MS = 3_000;
/** A connection that is back sooner, as when the server restarts, was never missed. */
const UNNOTICED_MS = 4_000;

/** Says when the connection is lost, when it is tried again, and that it is back. */
export class ConnectionLine {
  /**
   * @param {MessagingClient} client
   * @param {Texts} texts
   */
  constructor(client, texts) {
    this.texts = texts;
    this.line = byId("connection");
    this.retry = part(this.line, "retry");
    this.wasLost = false;
    this.timer = 0;
    /** @type {number | null} */
    this.lostAt = null;
    this.notice = 0;
    client.addEventListener("status", () => this.show(client.status));
    this.retry.addEventListener("click", () => client.retryNow());
    window.addEventListener("online", () => client.retryNow());
    // Timers of hidden pages run late.
    document.addEventListener("visibilitychange", () => document.hidden || client.retryNow());
  }

  /** @param {import("../client.js").Status} status */
  show(status) {
    clearTimeout(this.notice);
    document.documentElement.dataset.connection = status.state;
    if (status.state === "open" || status.state === "closed") {
      this.lostAt = null;
    } else if (status.state === "lost") {
      this.lostAt ??= Date.now();
    }
    const unnoticed = this.lostAt === null || this.wasLost ? 0 : this.lostAt + UNNOTICED_MS - Date.now();
    if (unnoticed > 0) {
      this.notice = setTimeout(() => this.tell(status), unnoticed);
    } else {
      this.tell(status);
    }
  }

  /** @param {import("../client.js").Status} status */
  tell(status) {
    clearInterval(this.timer);
    this.retry.hidden = status.state !== "lost";
    if (status.state === "lost") {
      this.wasLost = true;
      this.countDown(Date.now() + status.retryIn);
      this.say(this.texts.lost);
    } else if (status.state === "connecting" && this.wasLost) {
      this.say(this.texts.lost, this.texts.connecting);
    } else if (status.state === "open" && this.wasLost) {
      this.wasLost = false;
      this.say(this.texts.recovered, "");
      this.timer = setTimeout(() => this.say("", ""), RECOVERED_MS);
    } else if (status.state === "closed") {
      this.say(this.texts.closed[status.reason] ?? this.texts.closed.other, "");
    }
  }

  /** @param {number} end */
  countDown(end) {
    const tick = () => {
      const seconds = Math.max(0, Math.ceil((end - Date.now()) / 1_000));
      part(this.line, "wait").textContent = fill(this.texts.retryIn, { seconds });
    };
    tick();
    this.timer = setInterval(tick, 250);
  }

  /**
   * @param {string} text
   * @param {string} [wait] Not read out: it changes all the time.
   */
  say(text, wait) {
    const element = part(this.line, "text");
    if (element.textContent !== text) {
      showText(element, text);
    }
    if (wait !== undefined) {
      part(this.line, "wait").textContent = wait;
    }
    this.line.hidden = text === "";
  }
}
