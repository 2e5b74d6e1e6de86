/** The client of chatd. Times are RFC 3339 in UTC, delays are seconds, lengths are Unicode code points. */

export interface Backoff {
  /** seconds of the first delay, at most */
  min: number;
  /** seconds of any delay, at most */
  max: number;
}

export interface ClientOptions {
  /** Absolute, or (in a browser) relative to the document; "": the document's own place. */
  baseUrl?: string | URL;
  /** A bearer token, or a function that is asked for one before each request; its time counts as silence. */
  token?: string | null | (() => string | null | Promise<string | null>);
  /** The character that is spoken for where a call names none. */
  characterId?: number;
  fetch?: typeof globalThis.fetch;
  backoff?: Partial<Backoff>;
  /** Seconds without a byte after which a connection counts as broken; 45. chatd pings every 15. */
  silence?: number;
}

export interface RequestOptions {
  signal?: AbortSignal | null;
}

export interface MessageOptions extends RequestOptions {
  /** None: a new session. */
  sessionId?: string | null;
  characterId?: number;
  /** The same key and message again start nothing new; one is made up where none is given. */
  idempotencyKey?: string;
}

export interface StreamOptions extends RequestOptions {
  onEvent?: (event: ChatEvent) => void;
  /** After each piece, with all of the text so far; after a reset the piece is "". */
  onText?: (piece: string, text: string) => void;
  onDone?: (event: DoneEvent) => void;
  /** The turn has failed, or it can't be followed; not called for an abort. */
  onError?: (error: Error) => void;
}

export interface AttachOptions extends StreamOptions {
  lastEventId?: string | null;
  /** The text up to `lastEventId`: `ChatStream.text` goes on from it. */
  text?: string;
  /** The answer's id: it tells the turn from a later one where `lastEventId` can't be honoured any more. */
  messageId?: string | null;
}

export interface PageOptions extends RequestOptions {
  limit?: number;
  before?: string | null;
}

export interface HistoryOptions extends PageOptions {
  after?: string | null;
}

export interface SessionOptions extends RequestOptions {
  characterId?: number;
  title?: string | null;
  systemPrompt?: string | null;
}

export type SessionStatus = "idle" | "thinking" | "executing" | "error";
export type TokenUsage = { input_tokens?: number; output_tokens?: number; [kind: string]: unknown };

export interface Session {
  session_id: string;
  character_id: number;
  title: string | null;
  status: SessionStatus;
  message_count: number;
  created_at: string;
  updated_at: string;
}

export interface SessionList {
  sessions: Session[];
  /** The `before` of the next page, null after the last one. */
  next: string | null;
}

export interface Message {
  id: string;
  role: "user" | "assistant" | "system";
  content: string;
  content_blocks: { type: string; [key: string]: unknown }[];
  created_at: string;
  token_usage: TokenUsage | null;
  status: "complete" | "stopped" | "interrupted";
  model: string | null;
  stop_reason: string | null;
}

export interface History {
  session_id: string;
  status: SessionStatus;
  /** In the whole session. */
  message_count: number;
  /** Oldest first. */
  messages: Message[];
  /** The `before` of the page before, null where there is none. */
  before: string | null;
}

export interface Answer {
  session_id: string;
  status: SessionStatus;
  turn_id: string;
  message_id: string | null;
  message: Message | null;
}

export interface Stopped {
  session_id: string;
  stopped: boolean;
  message_id: string | null;
}

export interface Me {
  owner: string;
  /** null: any */
  characters: number[] | null;
  admin: boolean;
  expires_at: string | null;
}

export interface StartEvent {
  type: "start";
  session_id: string;
  turn_id: string;
  message_id: string;
  user_message_id: string;
}

export interface TextEvent {
  type: "text";
  text: string;
}

export interface RetryEvent {
  type: "retry";
  attempt: number;
  max_attempts: number;
  delay: number;
  reason: string;
}

/** Forget the text so far: this is all of it. */
export interface ResetEvent {
  type: "reset";
  text: string;
}

/** The answer is saved, and `ChatStream.text` is what was saved. */
export interface DoneEvent {
  type: "done";
  message_id: string | null;
  status: "complete" | "stopped";
  stop_reason: string | null;
  token_usage: TokenUsage | null;
  length: number;
}

/** The turn has ended without a complete answer; `interrupted`: its events are gone, what is saved of it was read. */
export interface ErrorEvent {
  type: "error";
  error: string;
  code: string;
  message_id: string | null;
}

/** The connection has changed; `attempt` is that of the next one, `code` why there has to be one. */
export interface ConnectionEvent {
  type: "connection";
  state: "open" | "waiting" | "offline";
  delay: number | null;
  attempt: number;
  code: string | null;
}

/** Ignore what you do not know: chatd may add types and keys. */
export type ChatEvent =
  | StartEvent
  | TextEvent
  | RetryEvent
  | ResetEvent
  | DoneEvent
  | ErrorEvent
  | ConnectionEvent;

/** An event stream's event, as it was on the wire. */
export interface SseEvent {
  /** The last id there was, its own or an earlier one. */
  id: string;
  /** Whether the id is its own. */
  numbered: boolean;
  event: string;
  data: string;
}

/** RFC 9457. */
export interface Problem {
  type?: string;
  title?: string;
  status?: number;
  detail?: string;
  code?: string;
  errors?: Record<string, string[]>;
  [key: string]: unknown;
}

export interface ChatdErrorOptions {
  status?: number;
  code: string;
  errors?: Record<string, string[]> | null;
  retryAfter?: number | null;
  problem?: Problem | null;
  cause?: unknown;
}

export declare class ChatdError extends Error {
  constructor(detail: string, options: ChatdErrorOptions);
  /** For people. */
  detail: string;
  /** The answer's status; 0: there was none, or the turn failed. */
  status: number;
  /**
   * chatd's, or `unreachable`, `cut`, `silent`, `offline`, `gap`, `redirected`, `unexpected_response`, `too_large`,
   * `interrupted`, `http_STATUS`.
   */
  code: string;
  errors: Record<string, string[]> | null;
  /** Seconds. */
  retryAfter: number | null;
  problem: Problem | null;
  /** Whether the same request may well succeed in a while. */
  get passing(): boolean;
}

export declare class ChatStream implements AsyncIterable<ChatEvent> {
  private constructor();
  [Symbol.asyncIterator](): AsyncIterator<ChatEvent, void, void>;
  /** The text so far: up to the event that was handed out last, as are the ids. */
  get text(): string;
  get sessionId(): string | null;
  get turnId(): string | null;
  get messageId(): string | null;
  get lastEventId(): string;
  /** Resolves with null where there was nothing to stream; rejects with ChatdError, or the signal's reason. */
  get completed(): Promise<DoneEvent | null>;
  /** Close the connection; the turn itself goes on. */
  cancel(): void;
}

export declare class ChatClient {
  constructor(options?: ClientOptions);
  sendMessage(message: string, options?: MessageOptions): Promise<Answer>;
  streamChatResponse(message: string, options?: MessageOptions & StreamOptions): ChatStream;
  attach(sessionId: string, options?: AttachOptions): ChatStream;
  getChatHistory(sessionId: string, options?: HistoryOptions): Promise<History>;
  createSession(options?: SessionOptions): Promise<Session>;
  listSessions(options?: PageOptions): Promise<SessionList>;
  getSession(sessionId: string, options?: RequestOptions): Promise<Session>;
  renameSession(sessionId: string, title: string | null, options?: RequestOptions): Promise<Session>;
  deleteSession(sessionId: string, options?: RequestOptions & { keepalive?: boolean }): Promise<void>;
  stop(sessionId: string, options?: RequestOptions): Promise<Stopped>;
  me(options?: RequestOptions): Promise<Me>;
}

/** Return a random idempotency key. */
export declare function newKey(): string;

export declare class SseParser {
  constructor(lastEventId?: string);
  lastEventId: string;
  /** Milliseconds; null until the server has said. */
  retry: number | null;
  push(bytes: Uint8Array): SseEvent[];
}
