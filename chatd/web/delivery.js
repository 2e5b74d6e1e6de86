/** What becomes of a message that was sent: it goes on where its session is opened again, arrives, or is given back. */

import { isGone } from "./connection.js";

const GIVEN_UP = { status: 422, detail: "It is not known whether this message arrived: look before you send it again." };

export class Delivery {
  /** @param {import("./conversation.js").Conversation} conversation @param {import("./outbox.js").Outbox} outbox */
  constructor(conversation, outbox) {
    Object.assign(this, { conversation, outbox });
  }

  /** Go on with a message that is on its way in the open session; return whether there is one. */
  resume() {
    const { conversation } = this;
    const turn = this.outbox.turnIn(conversation.sessionId);
    const left = turn ? null : this.outbox.leftIn(conversation.sessionId);
    if (turn) conversation.show(turn);
    else if (left?.isRepeatable) conversation.send(left.text, left.key, left.character);
    else if (left) this.giveBack({ origin: conversation.sessionId, sending: left }, GIVEN_UP);
    return Boolean(turn || left?.isRepeatable);
  }

  /** Give back what an earlier page sent in the session that is wanted, since that is gone. */
  giveBackLeft(error) {
    const { wanted } = this.conversation;
    const left = this.outbox.turnIn(wanted) ? null : this.outbox.leftIn(wanted);
    if (left) this.giveBack({ origin: wanted, sending: left }, error);
  }

  /** A message did not get through: it goes back to where it was written. */
  giveBack({ origin, isWithdrawn, sending: { message, text, key } }, error) {
    const { conversation } = this;
    const here = origin === conversation.wanted;
    message?.remove();
    if (here) conversation.empty.hidden = origin !== null;
    if (isWithdrawn) return; // another tab has given it back
    this.outbox.giveBack(origin, key);
    conversation.tell("unsent", { text, key: isSpent(error) ? null : key, sessionId: origin, error, here });
  }

  /** A turn has started: its message has arrived, and the session that it has made is open now, if it was sent here. */
  arrived(turn, here) {
    const { origin, sessionId, sending } = turn;
    const title = titleOf(sending.text);
    this.settle(turn);
    if (here && origin === null) this.conversation.adopt({ session_id: sessionId, character_id: sending.character, title });
    this.conversation.tell("sent", { sessionId, isNew: origin === null, title, here });
    if (here) this.conversation.tell("change");
  }

  /** A turn that was begun long ago has no events any more: its message is in the history. */
  begunBefore(turn) {
    this.settle(turn);
    turn.sending.message.remove();
    this.conversation.tell("sent", { sessionId: turn.origin, isNew: false, here: false });
  }

  settle(turn) {
    turn.delivered = true;
    this.outbox.remove(turn.origin, turn.sending.key);
  }
}

/** Tell whether a key had another message, or its session is gone: it is of no use any more. */
const isSpent = (error) => isGone(error) || error?.status === 422;

/** Make a title of a message: its first line, cut at a word. */
function titleOf(text) {
  const line = text.trim().split("\n", 1)[0];
  const characters = [...line];
  if (characters.length <= 60) return line;
  return `${characters.slice(0, 60).join("").replace(/\s+\S*$/, "")}…`;
}
