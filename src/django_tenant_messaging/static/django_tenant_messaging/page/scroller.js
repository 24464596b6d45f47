// @ts-check
import { byId } from "./dom.js";

const NEAR_PX = 48;

/** Keeps the newest message in view for a reader who is at the end, and leaves alone who reads further up. */
export class Scroller {
  /** @param {() => void} onEnd Called whenever the reader is at the end. */
  constructor(onEnd) {
    this.area = byId("scroller");
    this.button = byId("newer");
    this.onEnd = onEnd;
    this.isAtEnd = true;
    this.area.addEventListener("scroll", () => this.look(), { passive: true });
    this.button.addEventListener("click", () => this.toEnd());
    // The area shrinks when a keyboard opens or the composer grows.
    new ResizeObserver(() => this.isAtEnd && this.toEnd()).observe(this.area);
    this.area.scrollTop = this.area.scrollHeight;
  }

  look() {
    const { scrollHeight, scrollTop, clientHeight } = this.area;
    this.isAtEnd = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    if (this.isAtEnd) {
      this.button.hidden = true;
      this.onEnd();
    }
  }

  toEnd() {
    this.area.scrollTop = this.area.scrollHeight;
    this.look();
  }

  /**
   * Add to the end of what is shown.
   *
   * @param {() => void} change
   * @param {{ follow?: boolean }} [options] `follow` goes to the end in any case.
   */
  append(change, { follow = false } = {}) {
    const goes = follow || this.isAtEnd;
    change();
    if (goes) {
      this.toEnd();
    } else {
      this.button.hidden = false;
    }
  }

  /**
   * Change what is shown; who is at the end stays there.
   *
   * @param {() => void} change
   */
  keep(change) {
    const stays = this.isAtEnd;
    change();
    if (stays) {
      this.toEnd();
    }
  }

  /**
   * Add above what is shown, which stays where it is.
   *
   * @param {() => void} change
   */
  prepend(change) {
    const { scrollHeight, scrollTop } = this.area;
    change();
    this.area.scrollTop = scrollTop + this.area.scrollHeight - scrollHeight;
  }
}
