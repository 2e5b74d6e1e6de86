"""A row a route: what it does, takes and answers. The document is made of it.

What every route has in common, an error or a header, is not in here but there.
"""

from chatd.errors import CharacterForbidden, Forbidden, NotFound, RateLimited, Unavailable, UpstreamFailed
from chatd.openapi import responses
from chatd.openapi.row_types import (
    CACHED,
    NOT_CHANGED,
    QUOTAS,
    SESSION_ERRORS,
    STREAM,
    TURN_ERRORS,
    Operation,
    ResponseInfo,
)
from chatd.schemas import (
    AuditPage,
    ChatRequest,
    HistoryPage,
    MeSchema,
    Page,
    RenameRequest,
    SessionRequest,
    SessionSchema,
    TicketRequest,
)

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/agent/chat"): Operation(
        "Post a message and wait for the answer",
        {
            200: ResponseInfo("The turn has ended.", responses.AnswerSchema, headers=("Idempotency-Replayed", *QUOTAS)),
            202: ResponseInfo(
                "The turn goes on.", responses.Accepted, headers=("Location", "Idempotency-Replayed", *QUOTAS)
            ),
        },
        (*TURN_ERRORS, UpstreamFailed),
        parameters=("Idempotency-Key", "Prefer"),
        body=ChatRequest,
        tag="chat",
        description=(
            "The session is made where none is given. With `Prefer: respond-async`, and when the server shuts "
            "down while the request waits, the answer is 202 at once, and `Location` tells where to attach. A "
            "turn that somebody stopped is a 200, too. Closing the connection ends nothing."
        ),
    ),
    ("POST", "/agent/chat/stream"): Operation(
        "Post a message and stream the answer",
        {200: ResponseInfo("The turn's events, to its end.", "StreamEvent", STREAM, ("Idempotency-Replayed", *QUOTAS))},
        TURN_ERRORS,
        parameters=("Idempotency-Key",),
        body=ChatRequest,
        tag="chat",
        description=(
            "Server-sent events without names: each has an `id` and, as `data`, one line of JSON with a `type`. "
            "After `done` or `error` the stream ends; one that ends otherwise was cut: attach again, with the id "
            "of the last event. Comments (`: ping`) come in silence."
        ),
    ),
    ("GET", "/agent/chat/stream/{session_id}"): Operation(
        "Attach to the running turn, or go on behind a cursor",
        {
            200: ResponseInfo("The events behind the cursor, to the turn's end.", "StreamEvent", STREAM),
            204: ResponseInfo("There is nothing (more) to stream."),
        },
        (NotFound, RateLimited),
        parameters=("Last-Event-ID", "last_event_id"),
        ticket=True,
        tag="chat",
        description=(
            "Without a cursor: the running turn from its first event, for any number of readers. With one: what "
            "came after it, of the turn that it names, no gap and no repeat. While the database is away it is "
            "answered with heartbeats, since an EventSource would give up after a 503."
        ),
    ),
    ("GET", "/agent/stream-test"): Operation(
        "Stream numbers and heartbeats for a while, to see what arrives through a proxy",
        {
            200: ResponseInfo(
                "What chatd sees of the request, numbers, heartbeats, an end.", "TestEvent", STREAM, QUOTAS
            )
        },
        (RateLimited, Unavailable),
        tag="host",
        description=(
            "How chatd was asked, ten numbers a tenth of a second apart, then heartbeats alone, then an end: what "
            "does not come like that was held back, or cut, on its way."
        ),
    ),
    ("GET", "/agent/chat/history/{session_id}"): Operation(
        "Read messages, oldest first",
        {200: ResponseInfo("The latest messages, or those before or after one: not both.", responses.History)},
        SESSION_ERRORS,
        query=HistoryPage,
        tag="chat",
        description=(
            "Without a cursor the latest ones. A page of long messages ends after 4 MiB. For the page before, "
            "ask again with `before` of the answer; with `after`, until a page is empty."
        ),
    ),
    ("POST", "/agent/chat/stop/{session_id}"): Operation(
        "Stop the running turn and keep its text",
        {200: ResponseInfo("Nothing runs there now.", responses.Stopped, headers=QUOTAS)},
        (*SESSION_ERRORS, RateLimited),
        tag="chat",
        description=(
            "Safe to repeat, and allowed before the first word. The answer so far becomes a message with the "
            "status `stopped`."
        ),
    ),
    ("POST", "/agent/stream-ticket"): Operation(
        "Make a ticket for a session's streams",
        {201: ResponseInfo("The ticket.", responses.Ticket, headers=QUOTAS)},
        (*SESSION_ERRORS, RateLimited),
        body=TicketRequest,
        tag="access",
        description=(
            "A ticket opens the streams of one session, as `?ticket=`, until five minutes after its last use and "
            "no longer than the token."
        ),
    ),
    ("POST", "/agent/session"): Operation(
        "Make a session",
        {201: ResponseInfo("The session.", SessionSchema, headers=("Location", *QUOTAS))},
        (CharacterForbidden, RateLimited, Unavailable),
        body=SessionRequest,
        tag="sessions",
        description="A session may as well be made by its first message; here it gets a title and a system prompt.",
    ),
    ("GET", "/agent/sessions"): Operation(
        "List sessions, latest activity first",
        {200: ResponseInfo("The sessions, and the cursor of the next page.", responses.SessionList)},
        (Unavailable,),
        query=Page,
        tag="sessions",
        description="Your own, each with its title, status and number of messages.",
    ),
    ("GET", "/agent/session/{session_id}"): Operation(
        "Read a session",
        {200: ResponseInfo("The session.", SessionSchema)},
        SESSION_ERRORS,
        tag="sessions",
        description="An admin may read any session, which the audit records.",
    ),
    ("PATCH", "/agent/session/{session_id}"): Operation(
        "Rename a session",
        {200: ResponseInfo("The session.", SessionSchema, headers=QUOTAS)},
        (*SESSION_ERRORS, RateLimited),
        body=RenameRequest,
        tag="sessions",
        description="The title is for people; the model is not told.",
    ),
    ("DELETE", "/agent/session/{session_id}"): Operation(
        "Delete a session with all its messages",
        {204: ResponseInfo("It is gone.")},
        SESSION_ERRORS,
        tag="sessions",
        description="A running turn is stopped first. There is no way back.",
    ),
    ("GET", "/agent/me"): Operation(
        "Read what the token says",
        {200: ResponseInfo("Whom it speaks for, as which characters, and how long.", MeSchema)},
        (Unavailable,),
        tag="access",
        description="Without tokens everyone is `anonymous`.",
    ),
    ("GET", "/agent/audit"): Operation(
        "Read the audit, latest entry first; for admins",
        {200: ResponseInfo("The entries, and the cursor of the next page.", responses.Audit)},
        (Forbidden, Unavailable),
        query=AuditPage,
        tag="audit",
        description="Never what was said, a title or a token. For tokens with the role `admin`.",
    ),
    ("GET", "/healthz"): Operation(
        "Is the process alive?",
        {200: ResponseInfo("It is.", responses.Health)},
        tag="host",
        description="It looks at nothing but itself: a process that does not answer should be replaced.",
    ),
    ("GET", "/readyz"): Operation(
        "May it be sent requests?",
        {200: ResponseInfo("It may.", responses.Readiness), 503: ResponseInfo("It may not, now.", responses.Readiness)},
        tag="host",
        description="503 while the database is away or the process shuts down: send requests elsewhere.",
    ),
    ("GET", "/openapi.json"): Operation(
        "Read this document",
        {200: ResponseInfo("OpenAPI 3.1.", "Document")},
        tag="page",
        description="Made from the schemas that requests are checked by.",
    ),
    ("GET", "/metrics"): Operation(
        "Read the metrics; for admins and this host's own programs",
        {200: ResponseInfo("In Prometheus' text format, or in OpenMetrics.", "File", "text/plain")},
        (Forbidden, Unavailable),
        local=True,
        tag="host",
        description="Numbers alone: nobody's words, names or ids.",
    ),
    ("GET", "/"): Operation(
        "Open the web page",
        {200: ResponseInfo("The page.", "File", "text/html", CACHED), **NOT_CHANGED},
        tag="page",
        description="It works below a path of a proxy's, too.",
    ),
    ("GET", "/docs"): Operation(
        "Open this description as a page",
        {200: ResponseInfo("The page.", "File", "text/html", CACHED), **NOT_CHANGED},
        tag="page",
        description="Every operation, with its examples, and a form to send it by; it loads nothing from elsewhere.",
    ),
    ("GET", "/web/{path:.+}"): Operation(
        "Read one of the page's files",
        {200: ResponseInfo("The file.", "File", "*/*", CACHED), **NOT_CHANGED},
        (NotFound,),
        parameters=("path",),
        tag="page",
        description="With an ETag, and compressed for those who take that.",
    ),
    ("GET", "/favicon.ico"): Operation(
        "Read the page's icon",
        {200: ResponseInfo("The icon.", "File", "image/x-icon", CACHED), **NOT_CHANGED},
        tag="page",
        description="It is the page's own.",
    ),
}
