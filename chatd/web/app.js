/** The page: its parts, and what they tell each other. */

import { Account } from "./account.js";
import { Announcer } from "./announcer.js";
import { pause } from "./client/lifeline.js";
import { Composer } from "./composer.js";
import { Connection, isGone } from "./connection.js";
import { Conversation } from "./conversation.js";
import { find, part } from "./dom.js";
import { Drafts } from "./drafts.js";
import { Outbox } from "./outbox.js";
import { Scrolling } from "./scrolling.js";
import { Sessions } from "./sessions.js";
import { Sidebar } from "./sidebar.js";
import { Toast } from "./toast.js";

const POLL = 3; // seconds between two looks at the open session, while the page is seen
const POLL_LIST = 12; // and at the list

const account = new Account();
const connection = new Connection(find("connection"));
const drafts = new Drafts(account);
const toast = new Toast(find("toast"));
const announcer = new Announcer(find("announcer"));
const composer = new Composer(document.querySelector(".dock"), drafts);
const scrolling = new Scrolling(document.querySelector(".scroller"), document.querySelector(".column"), find("jump"));
const sidebar = new Sidebar(document.getElementById("sidebar"), document.getElementById("main"), find("menu"));
const sessions = new Sessions(document.getElementById("sidebar"), { account, connection, toast });
const conversation = new Conversation({
  ...{ account, connection, announcer, scrolling, outbox: new Outbox(account) },
  ...{ messages: find("messages"), older: find("older"), empty: part("empty") },
});

const sessionInUrl = () => /^#(sess-[0-9a-f]{32})$/.exec(location.hash)?.[1] ?? null;

let openId; // of the open session; null for a new one

async function openFromUrl() {
  const id = sessionInUrl();
  sidebar.close();
  if (matchMedia("(pointer: fine)").matches) composer.field.focus(); // elsewhere a keyboard would cover the page
  if (id === openId) return;
  openId = id;
  sessions.open(id);
  composer.open(id);
  await conversation.open(id);
}

/** Leave the open session for a new one; where that is gone, there is no way back to it. */
function startNew(leaveFor = "pushState") {
  const url = location.pathname + location.search;
  if (openId !== null) history[leaveFor](null, "", url);
  return openFromUrl();
}

function showState() {
  const { session, wanted, ready, busy } = conversation;
  const title = session ? (sessions.titleOf(session) ?? "Untitled") : wanted ? "…" : "New conversation";
  find("session-title").textContent = title;
  document.title = session ? `${title} · chatd` : "chatd";
  composer.setState({ ready, busy });
}

function renamed({ id, title }) {
  if (id !== conversation.sessionId) return;
  conversation.session.title = title;
  showState();
}

/** A message got through: a session that it has made gets its place in the URL, and a title. */
async function sent({ sessionId, isNew, title, here }) {
  if (here && isNew) {
    history.replaceState(null, "", `#${sessionId}`);
    openId = sessions.current = sessionId;
    composer.moveTo(sessionId);
  }
  if (isNew) await sessions.nameNew(sessionId, title);
  await sessions.refresh();
}

/** A message did not get through: it is a draft again. */
function unsent({ error, text, key, sessionId, here }) {
  const to = isGone(error) ? null : sessionId; // where that is gone, to a new one
  if (!here && to !== openId) return drafts.add(to, text, key);
  composer.add(text, key);
  composer.tell(error?.name === "AbortError" ? "" : (error?.detail ?? "This message was not sent."));
}

async function send({ text, key }) {
  await conversation.send(text, key);
  await sessions.refresh();
}

/** The open session is gone: what was being written is not. */
async function missing() {
  if (openId === null) return; // a new one can't be
  const text = composer.takeOut();
  await startNew("replaceState");
  if (text.trim()) composer.add(text);
  composer.tell("This conversation does not exist, or not any more.");
}

function showAccount() {
  const { characters } = account.me;
  const select = find("character");
  select.replaceChildren(...(characters ?? []).map((id) => new Option(id, id, false, id === account.character)));
  select.closest("label").hidden = (characters?.length ?? 0) < 2;
  find("sign-out").hidden = account.token === null;
}

function signOut() {
  toast.close(); // what can't be deleted now stays
  return account.signOut();
}

function listen() {
  const on = (target, type, does) => target.addEventListener(type, ({ detail }) => does(detail));
  on(account, "change", showAccount);
  on(composer, "send", send);
  on(composer, "stop", () => conversation.turn?.stop());
  on(conversation, "change", showState);
  on(conversation, "sent", sent);
  on(conversation, "unsent", unsent);
  on(conversation, "missing", missing);
  on(sessions, "renamed", renamed);
  on(sessions, "deleted", (id) => id === openId && startNew());
  find("new-session").addEventListener("click", () => startNew());
  find("character").addEventListener("change", ({ target }) => account.choose(Number(target.value)));
  find("sign-out").addEventListener("click", signOut);
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the URL's hash is a session
    composer.field.focus();
  });
  find("sessions").addEventListener("click", ({ target }) => target.closest("a") && sidebar.close());
  addEventListener("hashchange", openFromUrl);
  addEventListener("popstate", openFromUrl);
  addEventListener("online", () => sessions.refresh());
}

/** Look every few seconds whether something happened elsewhere, as long as somebody looks at the page. */
async function keepLooking(seconds, look) {
  for (;;) {
    await pause(seconds);
    if (!document.hidden) await look().catch(tellFailure);
  }
}

/** Whatever fails and is handled nowhere else is told here, but for what was given up on purpose. */
function tellFailure(error) {
  if (error.name === "AbortError") return;
  composer.tell(error.detail ?? "Something went wrong: reload the page.");
  if (!error.detail) console.error(error);
}

async function openAccount() {
  for (;;) {
    try {
      await connection.persist(() => account.open());
      return composer.tell("");
    } catch (error) {
      tellFailure(error);
      await pause(POLL);
    }
  }
}

async function main() {
  await openAccount();
  showAccount();
  listen();
  sessions.resume();
  openFromUrl().catch(tellFailure);
  sessions.refresh().catch(tellFailure);
  keepLooking(POLL, () => conversation.poll());
  keepLooking(POLL_LIST, () => sessions.refresh());
}

addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  tellFailure(event.reason);
});
main();
