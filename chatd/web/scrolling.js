/** Keeps the end of the conversation in view, until the reader scrolls up. */

const NEAR = 32; // pixels from the end that count as the end
const AHEAD = "600px"; // how far above the view earlier messages are asked for

export class Scrolling {
  /** @param {HTMLElement} scroller @param {HTMLElement} content @param {HTMLElement} jump */
  constructor(scroller, content, jump) {
    Object.assign(this, { scroller, content, jump, following: true, last: 0 });
    scroller.addEventListener("scroll", () => this.look(), { passive: true });
    jump.addEventListener("click", () => this.toEnd());
    const resized = new ResizeObserver(() => this.following && this.toEnd());
    resized.observe(content);
    resized.observe(scroller);
  }

  /** Go to the end, and stay there while it moves. */
  toEnd() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.set(true);
  }

  /** Let go when the reader scrolls up: only that makes the position smaller while the end is out of view. */
  look() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const near = scrollHeight - scrollTop - clientHeight < NEAR;
    this.set(near || (this.following && scrollTop >= this.last - 1));
  }

  set(following) {
    this.last = this.scroller.scrollTop;
    this.following = following;
    this.jump.hidden = following;
  }

  /** Put something in above what is seen, which stays where it is. */
  keepPlace(change) {
    const below = this.scroller.scrollHeight - this.scroller.scrollTop;
    change();
    this.scroller.scrollTop = this.scroller.scrollHeight - below;
    this.last = this.scroller.scrollTop;
  }

  /** Call back whenever an element above comes near. */
  onNear(element, callback) {
    const seen = new IntersectionObserver(([entry]) => entry.isIntersecting && callback(), {
      root: this.scroller,
      rootMargin: `${AHEAD} 0px 0px 0px`,
    });
    seen.observe(element);
  }
}
