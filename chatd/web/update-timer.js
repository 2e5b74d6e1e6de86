/** When to bring the screen up to date: once a frame at most, and less often where an update takes long. */

const REST = 4;
const HIDDEN_INTERVAL = 250;

export class UpdateTimer {
  #update;
  #timers = [];
  #frame = 0;
  #notBefore = 0;

  /** @param {() => void} update */
  constructor(update) {
    this.#update = update;
  }

  /** Have an update soon; further calls until then change nothing. */
  schedule() {
    if (this.#timers.length) return;
    const wait = Math.max(0, this.#notBefore - performance.now());
    // A hidden tab gets no frames, so a timer stands by.
    this.#timers = [setTimeout(() => this.#run(), wait + HIDDEN_INTERVAL)];
    if (wait) this.#timers.push(setTimeout(() => this.#requestFrame(), wait));
    else this.#requestFrame();
  }

  /** Forget the update that was scheduled. */
  cancel() {
    cancelAnimationFrame(this.#frame);
    this.#timers.forEach(clearTimeout);
    this.#timers = [];
  }

  #requestFrame() {
    this.#frame = requestAnimationFrame(() => this.#run());
  }

  #run() {
    this.cancel();
    const start = performance.now();
    this.#update();
    this.#restAfter(start);
    // A timer set in a frame runs after it was laid out and painted, which is part of what an update costs.
    setTimeout(() => this.#restAfter(start));
  }

  #restAfter(start) {
    const now = performance.now();
    this.#notBefore = now + REST * (now - start);
  }
}
