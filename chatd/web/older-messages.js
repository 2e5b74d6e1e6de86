/** Earlier messages of the open session: loaded as one scrolls up to them, or by a button. */

export class OlderMessages {
  /** @param {import("./conversation.js").Conversation} conversation @param {HTMLElement} button */
  constructor(conversation, button) {
    Object.assign(this, { conversation, button, before: null, isLoading: false });
    button.addEventListener("click", () => this.load());
    conversation.scrolling.onNear(button, () => this.load());
  }

  /** @param {string | null} before cursor of the page before what is shown; null: there is none */
  set(before) {
    this.before = before;
    this.button.hidden = before === null;
  }

  async load() {
    if (this.isLoading || this.before === null) return;
    this.isLoading = true;
    try {
      await this.conversation.try((life) => this.put(life));
    } finally {
      this.isLoading = false;
    }
  }

  async put(life) {
    const { conversation } = this;
    const page = await conversation.history({ before: this.before });
    if (life !== conversation.life) return;
    conversation.scrolling.keepPlace(() => {
      conversation.messages.put(page.messages, true);
      this.set(page.before);
    });
  }
}
