/** An operation: what it takes and answers, with examples, and the form to try it by. */

import { block, element, pretty, prose, table } from "./elements.js";
import { fieldTable, resolve, typeOf } from "./schema.js";
import { tryOut } from "./try-out.js";

/** Return all that is shown of an operation when it is open. */
export function operationBody(operation, api) {
  const body = element("div", { class: "operation-body" }, element("p", {}, ...prose(operation.description)));
  body.append(tryOut(operation));
  if (operation.parameters.length) body.append(element("h4", {}, "Parameters"), parameterTable(operation, api));
  const sent = operation.requestBody?.content["application/json"];
  if (sent) body.append(element("h4", {}, "Body"), fieldTable(sent.schema, api));
  body.append(element("h4", {}, "Answers"));
  for (const [status, answer] of Object.entries(operation.responses)) body.append(answerDetails(status, answer, api));
  return body;
}

function parameterTable({ parameters }, api) {
  const rows = parameters.map(({ name, in: place, required, schema, description }) => [
    name,
    place,
    `${typeOf(schema, api)}${required ? "" : ", may be left out"}`,
    prose(description),
  ]);
  return table(["Parameter", "Where", "Type", "Meaning"], rows);
}

function answerDetails(status, answer, api) {
  const summary = element("summary", {}, element("b", {}, status), " ", ...prose(answer.description));
  const details = element("details", { class: "answer" }, summary);
  const fill = () => details.append(...headerTable(answer, api), ...contents(answer, api));
  details.addEventListener("toggle", fill, { once: true });
  return details;
}

function headerTable(answer, api) {
  const rows = Object.entries(answer.headers ?? {}).map(([name, header]) => {
    const { description, example } = resolve(header, api);
    return [name, prose(description), element("code", {}, String(example))];
  });
  return rows.length ? [table(["Header", "Meaning", "Example"], rows)] : [];
}

function contents(answer, api) {
  return Object.entries(answer.content ?? {}).flatMap(([type, { schema, examples = {} }]) => [
    element("p", { class: "muted" }, type),
    ...(type === "text/event-stream" ? eventsOf(schema, api) : fieldsOf(schema, api)),
    ...Object.entries(examples).flatMap(([name, { value }]) => exampleOf(name, type, value)),
  ]);
}

function fieldsOf(schema, api) {
  const forms = (schema.oneOf ?? [schema]).filter((form) => resolve(form, api).properties);
  return forms.slice(0, 1).map((form) => fieldTable(form, api)); // those of one status differ in their codes alone
}

function eventsOf(schema, api) {
  const events = resolve(schema, api).properties.data.contentSchema.oneOf;
  return events.flatMap((event) => {
    const { properties, description } = resolve(event, api);
    return [element("h5", {}, properties.type.enum[0]), element("p", {}, ...prose(description)), fieldTable(event, api)];
  });
}

function exampleOf(name, type, value) {
  const text = type === "text/event-stream" ? `id: ${value.id}\ndata: ${value.data}` : pretty(value);
  return [element("p", { class: "muted" }, `Example: ${name}`), block(text, `Example: ${name}`)];
}
