"""What nobody has caught, and what Python warns of: all of it is logged as everything else."""

import asyncio
import errno
import logging
import math
import sys
import threading
import warnings
from types import TracebackType
from typing import Any

logger = logging.getLogger(__name__)

OUT_OF = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
TELL_AGAIN = 10.0  # seconds


def log_uncaught() -> None:
    """Have Python tell by logging what it would write to standard error."""
    sys.excepthook = log_exception
    threading.excepthook = lambda args: logger.error("a thread ended", exc_info=args.exc_value)
    sys.unraisablehook = lambda args: logger.error("an unraisable exception", exc_info=args.exc_value)
    warnings.showwarning = log_warning  # type: ignore[assignment]


def log_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, KeyboardInterrupt):
        logger.warning("interrupted")
    else:
        logger.critical("ended by an unexpected exception", exc_info=(kind, error, trace))


def log_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
    logger.warning("%s:%d: %s: %s", filename, lineno, category.__name__, message)


class LoopErrors:
    """The event loop's exception handler: what went wrong, without the values around it; a lack of files now and then.

    asyncio reports a lack of file descriptors a thousand times a second, each time with a traceback.
    """

    def __init__(self) -> None:
        self.told = -math.inf

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in OUT_OF):
            logger.error("the event loop: %s", context.get("message"), exc_info=error)
        elif loop.time() >= self.told + TELL_AGAIN:
            self.told = loop.time()
            logger.error("no connection can be accepted: %s (raise the limit: ulimit -n, LimitNOFILE)", error.strerror)
