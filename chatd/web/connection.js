/** The state of the connection, in words: as requests and streams find it. */

import { pause } from "./client/lifeline.js";

const LONGEST = 15; // seconds between two tries
const WORDS = { online: "Connected", reconnecting: "Reconnecting…", offline: "Offline" };

export class Connection {
  constructor(element) {
    this.element = element;
    addEventListener("offline", () => this.set("offline"));
    addEventListener("online", () => this.set("reconnecting"));
  }

  /** @param {"online" | "reconnecting" | "offline"} state */
  set(state, words = WORDS[state]) {
    if (this.element.textContent === words) return;
    this.element.dataset.state = state;
    this.element.textContent = words;
  }

  /** Take over what the client tells of a stream. */
  follow({ state, code }) {
    if (code === "rate_limited") this.set("reconnecting", "Limit reached, waiting…");
    else this.set({ open: "online", waiting: "reconnecting", offline: "offline" }[state]);
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

  /** Make a request again and again until chatd can be reached. */
  async persist(request, signal) {
    for (let seconds = 1; ; seconds = Math.min(seconds * 2, LONGEST)) {
      try {
        return await this.watch(request);
      } catch (error) {
        if (!isUnreachable(error) || signal?.aborted) throw error;
        await pause(seconds, signal);
      }
    }
  }
}

/** Tell whether an error says nothing but that chatd can't be reached now. */
export const isUnreachable = (error) => error?.passing === true;

/** Tell whether chatd says that something does not exist; another 404 may be that of a proxy on the way. */
export const isGone = (error) => error?.code === "not_found";
