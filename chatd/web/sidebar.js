/** The list, which on narrow screens is drawn over the conversation, and put away again. */

export class Sidebar {
  constructor(element, main, button) {
    Object.assign(this, { element, main, button });
    button.addEventListener("click", () => this.open());
    for (const closing of document.querySelectorAll("[data-action=close-sidebar]")) closing.addEventListener("click", () => this.close());
    addEventListener("keydown", (event) => event.key === "Escape" && this.close());
    matchMedia("(width < 48rem)").addEventListener("change", () => this.close());
  }

  get isOpen() {
    return document.body.classList.contains("sidebar-open");
  }

  open() {
    this.set(true);
    this.element.querySelector("button").focus();
  }

  close() {
    if (!this.isOpen) return;
    this.set(false);
    this.button.focus();
  }

  /** While it lies over the conversation, that is out of reach. */
  set(open) {
    document.body.classList.toggle("sidebar-open", open);
    this.main.inert = open;
    this.button.setAttribute("aria-expanded", String(open));
  }
}
