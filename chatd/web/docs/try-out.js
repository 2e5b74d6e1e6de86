/** A form that sends a request as an operation describes it, and shows the answer as it comes. */

import { tab } from "../storage.js";
import { block, element, pretty } from "./elements.js";

export const base = new URL(".", location.href); // where the API is: the page may be below a path of a proxy's

/** Return the form. */
export function tryOut(operation) {
  const fields = operation.parameters.map((parameter) => [parameter, fieldOf(operation, parameter)]);
  const body = bodyField(operation);
  const send = element("button", { type: "submit", class: "primary-button" }, "Send");
  const cut = element("button", { type: "button", class: "quiet-button", hidden: true }, "Close the connection");
  const answer = block("", "The answer", { class: "sent", hidden: true, "data-testid": "answer" });
  const labels = fields.map(([{ name, required }, field]) =>
    element("label", {}, `${name}${required ? "" : " (may be left out)"}`, field),
  );
  const buttons = element("p", {}, send, " ", cut);
  const form = element("form", { class: "try-out", "aria-label": "Try it" }, ...labels, ...body.parts, buttons, answer);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    exchange(requestOf(operation, fields, body.field), { send, cut, answer });
  });
  return form;
}

function fieldOf({ operationId }, { name, required = false, example, schema }) {
  const placeholder = String(example ?? schema.default ?? "");
  const looks = { placeholder, autocomplete: "off", spellcheck: "false" };
  return element("input", { name: `${operationId}-${name}`, required, ...looks });
}

/** Return the field for the body, filled with an example, and what chooses another one. */
function bodyField({ requestBody }) {
  if (!requestBody) return { parts: [] };
  const examples = Object.entries(requestBody.content["application/json"].examples);
  const field = element("textarea", { rows: "6", spellcheck: "false" }, pretty(examples[0][1].value));
  const choice = element("select", {}, ...examples.map(([name]) => element("option", {}, name)));
  choice.addEventListener("change", () => {
    field.value = pretty(examples[choice.selectedIndex][1].value);
  });
  return { field, parts: [element("label", {}, "Example", choice), element("label", {}, "Body", field)] };
}

/** Return what is to be sent: its URL, and what fetch takes beside that. */
function requestOf({ method, path, security }, fields, body) {
  const given = fields.map(([{ name, in: place }, { value }]) => ({ name, place, value: value.trim() }));
  const at = (place) => given.filter((one) => one.place === place && one.value);
  const filled = at("path").reduce((text, { name, value }) => text.replace(`{${name}}`, () => encodePath(value)), path);
  const url = new URL(filled.slice(1), base);
  for (const { name, value } of at("query")) url.searchParams.set(name, value);
  const headers = Object.fromEntries(at("header").map(({ name, value }) => [name, value]));
  if (body) headers["Content-Type"] = "application/json";
  if (security.length && tab.get("token")) headers.Authorization = `Bearer ${tab.get("token")}`;
  return { url, options: { method: method.toUpperCase(), headers, body: body?.value, cache: "no-store" } };
}

const encodePath = (text) => text.split("/").map(encodeURIComponent).join("/");

/** Send a request and show its answer, until it ends or is cut. */
async function exchange({ url, options }, { send, cut, answer }) {
  const life = new AbortController();
  cut.onclick = () => life.abort();
  answer.hidden = cut.hidden = false;
  send.disabled = true;
  try {
    await read(await fetch(url, { ...options, signal: life.signal }), answer);
  } catch (error) {
    answer.append(life.signal.aborted ? "\n(closed)" : `\n(${error.message})`);
  } finally {
    const isIdle = [document.body, send, cut].includes(document.activeElement);
    cut.hidden = true;
    send.disabled = false;
    if (isIdle) send.focus();
  }
}

async function read(response, answer) {
  const headers = [...response.headers].map(([name, value]) => `${name}: ${value}`);
  answer.textContent = [`${response.status} ${response.statusText}`, ...headers, "", ""].join("\n");
  if (response.headers.get("Content-Type")?.includes("json")) {
    answer.append(pretty(await response.json()));
    return;
  }
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader(); // Safari can't `for await` a stream
  for (let part = await reader?.read(); part && !part.done; part = await reader.read()) answer.append(part.value);
}
