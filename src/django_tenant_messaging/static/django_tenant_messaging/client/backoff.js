// @ts-check

const FIRST_MS = 1_000;
const LONGEST_MS = 30_000;

/** Full jitter: a random share of a limit that doubles from 1 to 30 s, so that a restart isn't followed by a stampede. */
export class Backoff {
  /** @param {() => number} [random] */
  constructor(random = Math.random) {
    this.random = random;
    this.attempts = 0;
  }

  /** @returns {number} Milliseconds to wait before the next attempt. */
  next() {
    const limit = Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(this.attempts, 10));
    this.attempts += 1;
    return Math.round(limit * this.random());
  }

  reset() {
    this.attempts = 0;
  }
}
