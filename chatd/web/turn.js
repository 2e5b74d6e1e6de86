/** A turn as it is watched: what its events say is done to the conversation. */

import { isSignedOut } from "./account.js";

export class Turn {
  /**
   * @param {import("./conversation.js").Conversation} conversation
   * @param {(before: object | null, signal: AbortSignal) => object} connect opens a stream, or goes on where one was left
   * @param {import("./message.js").Message | null} sending the message that begins it, where it is begun here
   */
  constructor(conversation, connect, sending = null) {
    Object.assign(this, { conversation, connect, sending });
    this.answer = null;
    this.sessionId = conversation.sessionId;
    this.isNew = this.sessionId === null;
    this.stopping = false;
    this.life = new AbortController();
  }

  /** Watch until the turn has ended, asking for new tokens on the way; raises what kept it from being begun or read. */
  async watch() {
    let stream = null;
    for (;;) {
      try {
        stream = this.connect(stream, this.life.signal);
        for await (const event of stream) await this.take(event);
        return;
      } catch (error) {
        if (!isSignedOut(error)) throw error;
        await this.conversation.account.signIn();
      }
    }
  }

  async take(event) {
    if (event.type === "connection") this.conversation.connection.follow(event);
    else if (event.type === "start") await this.start(event);
    else if (Object.hasOwn(EFFECTS, event.type)) EFFECTS[event.type](this, event);
  }

  get started() {
    return this.answer !== null;
  }

  async start({ session_id: sessionId, message_id: messageId, user_message_id: userMessageId }) {
    this.sessionId = sessionId;
    if (this.started) return; // told again, after a new token
    await this.conversation.began(this, userMessageId);
    this.answer = this.conversation.messages.answer(messageId);
    if (this.stopping) await this.stop();
  }

  /** Watch no longer; a message that is on its way must first be known to have arrived. */
  leave() {
    if (this.started || !this.sending) this.life.abort();
  }

  /** Stop it; one that has not started yet is stopped when it has. */
  async stop() {
    this.stopping = true;
    const { account } = this.conversation;
    if (this.started) await account.insist(() => account.client.stop(this.sessionId));
  }
}

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
