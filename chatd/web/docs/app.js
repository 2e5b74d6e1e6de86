/** The page that shows /openapi.json: its operations by their tags, each of which is made when it is first opened. */

import { part, show } from "../dom.js";
import { tab } from "../storage.js";
import { element, prose } from "./elements.js";
import { operationBody } from "./operation.js";
import { base } from "./try-out.js";

const METHODS = ["get", "post", "put", "patch", "delete"];

async function open() {
  const response = await fetch(new URL("openapi.json", base));
  if (!response.ok) throw new Error(`openapi.json can't be loaded: ${response.status} ${response.statusText}`);
  const api = await response.json();
  part("version").textContent = api.info.version;
  part("about").append(...prose(api.info.description));
  const tags = api.tags.map((tag) => ({ ...tag, operations: operationsOf(api, tag.name) }));
  part("contents").append(...tags.map(contentsOf));
  part("operations").append(...tags.map((tag) => sectionOf(tag, api)));
  keepToken(tags.flatMap((tag) => tag.operations));
  follow();
}

/** Return the operations that have a tag, each with its method and path. */
function operationsOf(api, tag) {
  const all = Object.entries(api.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => ({ ...item[method], method, path })),
  );
  return all.filter((operation) => operation.tags.includes(tag));
}

function contentsOf({ name, operations }) {
  const links = operations.map(({ operationId, summary }) =>
    element("li", {}, element("a", { href: `#${operationId}` }, summary)),
  );
  return element("section", {}, element("h2", {}, name), element("ul", {}, ...links));
}

function sectionOf({ name, description, externalDocs, operations }, api) {
  const more = externalDocs ? [" ", element("a", { href: externalDocs.url }, `${externalDocs.description}.`)] : [];
  const about = element("p", { class: "muted" }, description, ...more);
  return element("section", {}, element("h2", {}, name), about, ...operations.map((each) => detailsOf(each, api)));
}

function detailsOf(operation, api) {
  const name = element("h3", {}, element("b", {}, operation.method.toUpperCase()), ` ${operation.path}`);
  const summary = element("summary", {}, name, element("span", {}, operation.summary));
  const details = element("details", { class: "operation", id: operation.operationId }, summary);
  details.addEventListener("toggle", () => details.append(operationBody(operation, api)), { once: true });
  return details;
}

/** Ask for a token where one is needed; what was given is kept where the chat of this tab keeps it. */
function keepToken(operations) {
  const form = document.querySelector(".token");
  const field = form.querySelector("input");
  form.hidden = operations.every(({ security }) => isOpen(security));
  field.value = tab.get("token") ?? "";
  field.addEventListener("input", () => tab.set("token", field.value.trim()));
  form.addEventListener("submit", (event) => event.preventDefault());
}

/** Tell whether an operation can be had without a token: nothing is asked for, or nothing is one of the ways. */
const isOpen = (security) => !security.length || security.some((way) => !Object.keys(way).length);

/** Open what the address names. */
function follow() {
  const named = document.getElementById(location.hash.slice(1));
  if (!named?.matches("details")) return;
  named.open = true;
  named.querySelector("summary").focus();
}

addEventListener("hashchange", follow);
open().catch((error) => show(part("problem"), error.message));
