/** The state of the connection, in words: as requests and streams find it. */

const WORDS = { online: "Connected", reconnecting: "Reconnecting…", offline: "Offline" };

export class Connection {
  constructor(element) {
    this.element = element;
    addEventListener("offline", () => this.set("offline"));
    addEventListener("online", () => this.set("reconnecting"));
  }

  /** @param {"online" | "reconnecting" | "offline"} state */
  set(state) {
    if (this.element.dataset.state === state) return;
    this.element.dataset.state = state;
    this.element.textContent = WORDS[state];
  }

  /** Take over what the client tells of a stream. */
  follow({ state }) {
    this.set({ open: "online", waiting: "reconnecting", offline: "offline" }[state]);
  }

  /** Make a request and note whether chatd could be reached; its error is the caller's. */
  async watch(request) {
    try {
      const answer = await request();
      this.set("online");
      return answer;
    } catch (error) {
      if (isUnreachable(error)) this.set(navigator.onLine ? "reconnecting" : "offline");
      else if (error.status) this.set("online");
      throw error;
    }
  }
}

/** Tell whether an error says nothing but that chatd can't be reached now. */
export function isUnreachable(error) {
  return error instanceof TypeError || error?.status === 0 || [502, 503, 504].includes(error?.status);
}
