// What can go wrong: chatd's answers, the network's silence, and whether it is worth another try.

const PASSING = new Set([0, 408, 425, 429, 502, 503, 504]);
const PATIENCE = 60; // seconds of Retry-After that are waited for

/**
 * A failure: of a request (`status` is its status), or of the connection (`status` is 0).
 * @implements {Api.ChatdError}
 */
export class ChatdError extends Error {
  /**
   * @param {string} detail for people
   * @param {Api.ChatdErrorOptions} options
   */
  constructor(detail, { status = 0, code, errors = null, retryAfter = null, problem = null, cause }) {
    super(detail, { cause });
    this.name = "ChatdError";
    this.detail = detail;
    this.status = status;
    this.code = code;
    this.errors = errors;
    this.retryAfter = retryAfter;
    this.problem = problem;
  }

  /** Whether the same request may well succeed in a while. */
  get passing() {
    if ((this.retryAfter ?? 0) > PATIENCE) return false;
    return PASSING.has(this.status) && this.code !== "upstream_failed";
  }
}

/**
 * Return the error that an answer stands for.
 * @param {Response} response its status is not 2xx
 */
export async function errorOf(response) {
  const { status, type } = response;
  if (type === "opaqueredirect" || (status >= 300 && status < 400)) {
    return new ChatdError("The server answers by a redirect: sign in again?", { status: status || 302, code: "redirected" });
  }
  const problem = await readProblem(response);
  const code = typeof problem?.code === "string" ? problem.code : `http_${status}`;
  const detail = typeof problem?.detail === "string" ? problem.detail : `The server answered ${status}.`;
  const errors = problem?.errors ?? null;
  return new ChatdError(detail, { status, code, errors, retryAfter: retryAfterOf(response), problem });
}

/**
 * @param {Response} response
 * @returns {Promise<Api.Problem | null>}
 */
async function readProblem(response) {
  try {
    const body = await response.json();
    return body && typeof body === "object" ? body : null;
  } catch {
    return null; // a proxy's page, or a body that was cut: the status says enough
  }
}

/**
 * Return the seconds that an answer asks to wait, null where it does not.
 * @param {Response} response
 */
function retryAfterOf(response) {
  const value = response.headers.get("Retry-After");
  if (value === null) return null;
  const seconds = /^[0-9]+$/.test(value.trim()) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, seconds) : null;
}

/** @import * as Api from "./chatd-client.d.ts" */
