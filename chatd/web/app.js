/** The page: its parts, and what they tell each other. */

import { Account } from "./account.js";
import { Announcer } from "./announcer.js";
import { Composer, keepDraft, readDraft } from "./composer.js";
import { Connection, pause } from "./connection.js";
import { Conversation } from "./conversation.js";
import { find, part } from "./dom.js";
import { Scrolling } from "./scrolling.js";
import { Sessions } from "./sessions.js";
import { Sidebar } from "./sidebar.js";
import { Toast } from "./toast.js";

const POLL = 3; // seconds between two looks at the open session, while the page is seen
const LIST_EVERY = 4; // so many of them go without a look at the list
const NEW = "New conversation";

const account = new Account();
const connection = new Connection(find("connection"));
const announcer = new Announcer(find("announcer"));
const composer = new Composer(document.querySelector(".dock"));
const scrolling = new Scrolling(document.querySelector(".scroller"), document.querySelector(".column"), find("jump"));
const sidebar = new Sidebar(document.getElementById("sidebar"), document.getElementById("main"), find("menu"));
const sessions = new Sessions(document.getElementById("sidebar"), { account, connection, toast: new Toast(find("toast")) });
const conversation = new Conversation({
  ...{ account, connection, announcer, scrolling },
  ...{ messages: find("messages"), older: find("older"), empty: part("empty") },
});

const sessionInUrl = () => /^#(sess-[0-9a-f]{32})$/.exec(location.hash)?.[1] ?? null;
const draftOf = (sessionId) => account.key(`draft:${sessionId ?? "new"}`);

let openId; // of the open session; null for a new one

async function openFromUrl() {
  const id = sessionInUrl();
  sidebar.close();
  if (matchMedia("(pointer: fine)").matches) composer.field.focus(); // elsewhere a keyboard would cover the page
  if (id === openId) return;
  openId = id;
  sessions.open(id);
  composer.open(draftOf(id));
  await conversation.open(id);
}

function startNew() {
  history.pushState(null, "", location.pathname + location.search);
  return openFromUrl();
}

function showState() {
  const title = conversation.session ? (conversation.session.title ?? "Untitled") : NEW;
  find("session-title").textContent = title;
  document.title = conversation.session ? `${title} · chatd` : "chatd";
  composer.busy = conversation.busy;
}

/** A message got through: its draft is done with, a new session gets its title. */
async function sent({ text, sessionId, isNew, title, here }) {
  const draft = draftOf(isNew ? null : sessionId);
  if (readDraft(draft).text === text) keepDraft(draft, "");
  if (here && isNew) {
    history.replaceState(null, "", `#${sessionId}`);
    openId = sessions.current = sessionId;
    composer.key = draftOf(sessionId);
  }
  if (isNew) await connection.persist(() => account.insist(() => account.client.renameSession(sessionId, title)));
  await sessions.refresh();
}

/** A message did not get through: it is a draft again. */
function unsent({ error, text, sessionId, here }) {
  keepDraft(draftOf(sessionId), text);
  if (!here) return;
  if (!composer.field.value) composer.write(text);
  composer.tell(error.detail ?? "The message could not be sent.");
}

async function send({ text, key }) {
  keepDraft(composer.key, text, key);
  composer.write("");
  await conversation.send(text, key);
  await sessions.refresh();
}

function missing() {
  startNew();
  composer.tell("This conversation does not exist, or not any more.");
}

function showAccount() {
  const { characters } = account.me;
  const select = find("character");
  select.replaceChildren(...(characters ?? []).map((id) => new Option(id, id, false, id === account.character)));
  select.closest("label").hidden = (characters?.length ?? 0) < 2;
  select.addEventListener("change", () => account.choose(Number(select.value)));
  find("sign-out").hidden = account.token === null;
  find("sign-out").addEventListener("click", () => account.signOut());
}

function listen() {
  const on = (target, type, does) => target.addEventListener(type, ({ detail }) => does(detail));
  on(composer, "send", send);
  on(composer, "stop", () => conversation.turn?.stop());
  on(conversation, "change", showState);
  on(conversation, "sent", sent);
  on(conversation, "unsent", unsent);
  on(conversation, "missing", missing);
  on(sessions, "renamed", (id) => id === conversation.sessionId && conversation.poll());
  on(sessions, "deleted", (id) => id === openId && startNew());
  find("new-session").addEventListener("click", startNew);
  find("sessions").addEventListener("click", ({ target }) => target.closest("a") && sidebar.close());
  addEventListener("hashchange", openFromUrl);
  addEventListener("popstate", openFromUrl);
}

/** Look every few seconds whether something happened elsewhere, as long as somebody looks at the page. */
async function keepLooking() {
  for (let turn = 1; ; turn++) {
    await pause(POLL);
    if (document.hidden) continue;
    await conversation.poll().catch(tellFailure);
    if (turn % LIST_EVERY === 0) await sessions.refresh().catch(tellFailure);
  }
}

/** Whatever fails and is handled nowhere else is told here. */
function tellFailure(error) {
  composer.tell(error.detail ?? "Something went wrong: reload the page.");
  if (!error.detail) console.error(error);
}

async function main() {
  await connection.persist(() => account.open());
  showAccount();
  listen();
  await Promise.all([openFromUrl(), sessions.refresh()]);
  await keepLooking();
}

addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  tellFailure(event.reason);
});
main();
