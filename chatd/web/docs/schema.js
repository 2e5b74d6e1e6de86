/** What a JSON Schema says, in words: a row a field. */

import { prose, table } from "./elements.js";

/** Return what a schema refers to, or the schema itself; of "something or null" the something. */
export function resolve(schema, api) {
  if (schema.$ref) return resolve(schema.$ref.split("/").slice(1).reduce((part, name) => part[name], api), api);
  const something = schema.anyOf?.find(({ type }) => type !== "null");
  return something ? resolve(something, api) : schema;
}

/** Return a table of a schema's fields, those within its fields too. */
export const fieldTable = (schema, api) => table(["Field", "Type", "Meaning"], rowsOf(schema, api, ""));

function rowsOf(schema, api, prefix) {
  const { properties = {}, required = [] } = resolve(schema, api);
  return Object.entries(properties).flatMap(([name, field]) => {
    const form = resolve(field, api);
    const isList = form.type === "array";
    const within = rowsOf(isList ? form.items : form, api, `${prefix}${name}${isList ? "[]" : ""}.`);
    const type = `${typeOf(field, api)}${required.includes(name) ? "" : ", may be left out"}`;
    return [[`${prefix}${name}`, type, prose(field.description ?? "")], ...within];
  });
}

/** Return the type of a field, and the limits of its values, in words. */
export function typeOf(field, api) {
  const form = resolve(field, api);
  if (form.enum) return form.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (form.const !== undefined) return JSON.stringify(form.const);
  const orNull = field.anyOf?.some(({ type }) => type === "null") ? ["null"] : [];
  const types = [...[form.type ?? "anything"].flat(), ...orNull].join(" or ");
  const length = range(form.minLength, form.maxLength, " characters");
  const limits = [length, range(form.minimum, form.maximum, ""), form.format];
  return [types, ...limits.filter(Boolean)].join(", ");
}

function range(least, limit, unit) {
  const most = limit > Number.MAX_SAFE_INTEGER ? `2^${Math.log2(limit)} − 1` : limit; // as near as a number gets
  if (least === undefined && most === undefined) return "";
  if (most === undefined) return `at least ${least}${unit}`;
  return least === undefined ? `at most ${most}${unit}` : `${least} to ${most}${unit}`;
}
