// Requests to chatd: where to, with which token, and what an answer means.

import { ChatdError, errorOf } from "./errors.js";
import { Lifeline, unlessAborted } from "./lifeline.js";

/** Sends requests below one URL. */
export class Http {
  #base;
  #token;
  #fetch;

  /** @param {Pick<import("./chatd-client.d.ts").ClientOptions, "baseUrl" | "token" | "fetch" | "silence">} options */
  constructor({ baseUrl = "", token = null, fetch = globalThis.fetch, silence = 45 }) {
    this.#base = baseOf(String(baseUrl));
    this.#token = token;
    this.#fetch = fetch;
    this.silence = silence;
  }

  /**
   * Return the body of a JSON answer, null where it has none.
   * @param {string} method
   * @param {string} path relative
   * @param {RequestOptions & { silence?: number }} [options]
   */
  async json(method, path, { signal, silence = this.silence, ...rest } = {}) {
    const { body } = await this.exchange(method, path, { signal, silence, ...rest });
    return body;
  }

  /**
   * Return an answer's status and JSON body.
   * @param {string} method
   * @param {string} path
   * @param {RequestOptions & { silence?: number }} options
   * @returns {Promise<{ status: number, body: any }>}
   */
  async exchange(method, path, { signal, silence = this.silence, ...rest }) {
    const life = new Lifeline(signal, silence);
    try {
      const response = await life.wait(this.send(method, path, { ...rest, signal: life.signal }));
      const body = response.status === 204 ? null : await life.wait(jsonOf(response));
      return { status: response.status, body };
    } finally {
      life.close();
    }
  }

  /**
   * Send a request and return its answer, which is 2xx.
   * @param {string} method
   * @param {string} path
   * @param {RequestOptions} options
   * @returns {Promise<Response>}
   * @throws {ChatdError} an answer that is none, or no answer
   */
  async send(method, path, { query = {}, headers = {}, body, signal, keepalive }) {
    const url = this.#url(path, query);
    /** @type {RequestInit} */
    const request = { method, signal, cache: "no-store", credentials: "same-origin", redirect: "manual" };
    request.headers = await this.#headers(headers, body !== undefined, signal);
    if (body !== undefined) request.body = JSON.stringify(body);
    if (keepalive) request.keepalive = true;
    const response = await this.#reach(url, request);
    if (response.ok) return response;
    throw await errorOf(response);
  }

  /**
   * @param {string} path
   * @param {Record<string, string | number | null | undefined>} query
   */
  #url(path, query) {
    const url = new URL(path, this.#base);
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined && value !== null) url.searchParams.set(name, String(value));
    }
    return url;
  }

  /**
   * @param {Record<string, string | null | undefined>} given
   * @param {boolean} hasBody
   * @param {AbortSignal | null} [signal]
   */
  async #headers(given, hasBody, signal) {
    const headers = new Headers();
    for (const [name, value] of Object.entries(given)) if (value) headers.set(name, value);
    if (hasBody) headers.set("Content-Type", "application/json");
    const token = typeof this.#token === "function" ? await unlessAborted(this.#token(), signal) : this.#token;
    if (token) headers.set("Authorization", `Bearer ${token}`);
    return headers;
  }

  /**
   * @param {URL} url
   * @param {RequestInit} request
   */
  async #reach(url, request) {
    const fetch = this.#fetch; // a browser's wants no `this`
    try {
      return await fetch(url, request);
    } catch (cause) {
      if (request.signal?.aborted) throw request.signal.reason;
      throw new ChatdError("The server can't be reached.", { code: "unreachable", cause });
    }
  }
}

/**
 * Return the URL that paths are relative to.
 * @param {string} given absolute, or (in a browser) relative to the document
 */
function baseOf(given) {
  const here = globalThis.document?.baseURI ?? globalThis.location?.href;
  const base = new URL(given, here);
  if (given && !base.pathname.endsWith("/")) base.pathname += "/";
  return base;
}

/** @param {Response} response */
async function jsonOf(response) {
  try {
    return await response.json();
  } catch (cause) {
    if (cause instanceof SyntaxError && response.headers.get("Content-Type")?.includes("json") !== true) {
      throw new ChatdError("This is not a response from chatd.", { status: response.status, code: "unexpected_response", cause });
    }
    throw new ChatdError("The response was cut.", { code: "cut", cause });
  }
}

/**
 * @typedef {object} RequestOptions
 * @property {Record<string, string | number | null | undefined>} [query]
 * @property {Record<string, string | null | undefined>} [headers]
 * @property {unknown} [body]
 * @property {AbortSignal | null} [signal]
 * @property {boolean} [keepalive] whether it outlives the page
 */
