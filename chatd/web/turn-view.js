/** A turn as it is watched: what its events say is done to the conversation. */

import { isSignedOut } from "./account.js";

export class TurnView {
  /**
   * @param {import("./conversation.js").Conversation} conversation
   * @param {(before: object | null, signal: AbortSignal) => object} connect opens a stream, or goes on where one was left
   * @param {(import("./outbox.js").Sending & { message: import("./message.js").Message }) | null} sending what begins
   *   it, if it is begun here
   */
  constructor(conversation, connect, sending = null) {
    Object.assign(this, { conversation, connect, sending });
    this.origin = conversation.sessionId;
    this.sessionId = this.origin;
    this.answer = null;
    this.delivered = sending === null;
    this.away = false; // whether chatd can't be reached just now
    this.stopping = false;
    this.isWithdrawn = false; // whether another tab has given its message back
    this.life = new AbortController();
  }

  /** Watch until the turn has ended, asking for new tokens on the way; return what kept it from being begun or read. */
  async watch() {
    const failure = await this.read();
    this.life.abort();
    return failure;
  }

  async read() {
    let stream = null;
    for (;;) {
      try {
        stream = this.connect(stream, this.life.signal);
        for await (const event of stream) await this.take(event);
        return null;
      } catch (error) {
        if (!isSignedOut(error)) return error;
        await this.conversation.account.signIn();
      }
    }
  }

  async take(event) {
    if (event.type === "connection") this.connected(event);
    else if (event.type === "start") await this.start(event);
    else if (!this.delivered && ENDS.has(event.type)) this.conversation.delivery.begunBefore(this);
    else if (this.started && Object.hasOwn(EFFECTS, event.type)) EFFECTS[event.type](this, event);
  }

  connected(event) {
    this.away = event.state !== "open";
    this.conversation.connection.follow(event);
    if (this.stopping && !this.delivered) this.stop();
  }

  get started() {
    return this.answer !== null;
  }

  async start({ session_id: sessionId, message_id: messageId, user_message_id: userMessageId }) {
    if (this.started) return; // told again, after a new token
    const couldStop = this.delivered;
    this.sessionId = sessionId;
    const isShown = await this.conversation.began(this, userMessageId);
    if (this.stopping && !couldStop) this.stop();
    if (isShown) this.answer = this.conversation.messages.answer(messageId);
    else this.leave();
  }

  /** Show it no longer; but a message on its way must be known to have arrived, and what is to be stopped to have ended. */
  leave() {
    this.answer = null;
    if (this.delivered && !this.stopping) this.life.abort();
  }

  /** Stop it, as soon as its message has arrived; one that can't get through is called back. */
  async stop() {
    this.stopping = true;
    const { account, connection } = this.conversation;
    const { signal } = this.life; // not to stop the next one
    const ask = () => account.insist(() => account.client.stop(this.sessionId, { signal }));
    if (this.delivered) await connection.persist(ask, signal).catch((error) => this.hasEnded(error));
    else if (this.away) this.life.abort();
  }

  /** Send its message no more. */
  withdraw() {
    this.isWithdrawn = true;
    this.life.abort();
  }

  hasEnded(error) {
    if (!this.life.signal.aborted) throw error;
  }
}

const ENDS = new Set(["done", "error"]);

const EFFECTS = {
  text({ answer, conversation }, { text }) {
    answer.append(text);
    conversation.announcer.add(text);
  },
  reset({ answer, conversation }, { text }) {
    answer.reset(text);
    conversation.announcer.clear();
  },
  retry({ answer, conversation }, event) {
    answer.retry(event);
    conversation.announcer.end(`Attempt ${event.attempt} of ${event.max_attempts}.`);
  },
  done({ answer, conversation }, event) {
    answer.end({ ...event, created_at: new Date().toISOString() });
    if (!event.message_id) conversation.messages.drop(answer);
    conversation.announcer.end(event.status === "stopped" ? "The answer was stopped." : "The answer is complete.");
  },
  error({ answer, conversation }, { error, message_id: messageId }) {
    answer.end({ status: messageId ? "interrupted" : "error", created_at: new Date().toISOString() });
    answer.fail(error);
    conversation.announcer.end(error);
  },
};
