"""The settings: read from the environment here and nowhere else, every mistake reported at once, by name."""

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from chatd.errors import ConfigError

Parse = Callable[[str], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the environment says; secrets are kept out of the representation.

    `crash_point` is for the fault suite. The last three are systemd's: how many sockets it passes, where it hears of
    the service's state, and the seconds within which it wants to be told that the service is alive.
    """

    database_url: str | None = field(default=None, repr=False)
    data_dir: Path
    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None
    local_model: Path | None = None
    model: str = "claude-sonnet-5-5"
    max_tokens: int = 4096
    system_prompt: str = field(default="", repr=False)
    host: str = "127.0.0.1"
    port: int = 8000
    socket: Path | None = None
    db_pool: int = 10
    context_tokens: int = 100_000
    retry_factor: float = 1.0
    first_content_timeout: float = 30.0
    idle_timeout: float = 60.0
    turn_timeout: float = 900.0
    flush_interval: float = 0.01
    heartbeat: float = 15.0
    write_timeout: float = 20.0
    drain_timeout: float = 5.0
    event_retention: float = 86_400.0
    auth: str = "none"
    allow_anonymous: bool = False
    log_level: str = "info"
    log_format: str | None = None
    crash_point: str | None = None
    listen_fds: int = 0
    notify_socket: str | None = None
    watchdog: float | None = None

    @property
    def is_local_model(self) -> bool:
        return self.api_key is None and self.base_url is None


def number(kind: Callable[[str], float], low: float, high: float) -> Parse:
    def parse(text: str) -> float:
        value = kind(text)
        if not math.isfinite(value) or not low <= value <= high:
            raise ValueError(f"must be between {low:g} and {high:g}")
        return value

    return parse


def integer(low: int, high: int) -> Parse:
    return number(int, low, high)


def seconds(low: float = 0.001, high: float = 86_400) -> Parse:
    return number(float, low, high)


def one_of(*words: str) -> Parse:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"must be one of: {', '.join(words)}")
        return text.lower()

    return parse


def url(*schemes: str) -> Parse:
    def parse(text: str) -> str:
        if not text.startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise ValueError(f"must start with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        return text

    return parse


def crash_point(text: str) -> str:
    if not re.fullmatch(r"[a-z_]+(:[1-9][0-9]*)?", text):
        raise ValueError("must be NAME or NAME:N")
    return text


def path(text: str) -> Path:
    return Path(text).expanduser()


# variable: (field, how to read it). A variable in SECRETS may also come from a file.
VARIABLES: dict[str, tuple[str, Parse]] = {
    "DATABASE_URL": ("database_url", url("postgresql", "postgres")),
    "CHATD_DATA_DIR": ("data_dir", path),
    "ANTHROPIC_API_KEY": ("api_key", str),
    "ANTHROPIC_BASE_URL": ("base_url", url("https", "http")),
    "CHATD_LOCAL_MODEL": ("local_model", path),
    "CHATD_MODEL": ("model", str),
    "CHATD_MAX_TOKENS": ("max_tokens", integer(1, 1_000_000)),
    "CHATD_SYSTEM_PROMPT": ("system_prompt", str),
    "CHATD_HOST": ("host", lambda text: text.strip("[]")),
    "CHATD_PORT": ("port", integer(0, 65_535)),
    "CHATD_SOCKET": ("socket", path),
    "CHATD_DB_POOL": ("db_pool", integer(1, 1000)),
    "CHATD_CONTEXT_TOKENS": ("context_tokens", integer(1, 10_000_000)),
    "CHATD_RETRY_FACTOR": ("retry_factor", seconds(0, 60)),
    "CHATD_FIRST_CONTENT_TIMEOUT": ("first_content_timeout", seconds()),
    "CHATD_IDLE_TIMEOUT": ("idle_timeout", seconds()),
    "CHATD_TURN_TIMEOUT": ("turn_timeout", seconds()),
    "CHATD_FLUSH_INTERVAL": ("flush_interval", seconds(0, 10)),
    "CHATD_HEARTBEAT": ("heartbeat", seconds(0.05, 3600)),
    "CHATD_WRITE_TIMEOUT": ("write_timeout", seconds(0.05, 3600)),
    "CHATD_DRAIN_TIMEOUT": ("drain_timeout", seconds(0, 3600)),
    "CHATD_EVENT_RETENTION": ("event_retention", seconds(0, 10 * 365 * 86_400)),
    "CHATD_AUTH": ("auth", one_of("none")),
    "CHATD_ALLOW_ANONYMOUS": ("allow_anonymous", lambda text: one_of("0", "1")(text) == "1"),
    "CHATD_LOG_LEVEL": ("log_level", one_of("debug", "info", "warning", "error")),
    "CHATD_LOG_FORMAT": ("log_format", one_of("text", "json")),
    "CHATD_CRASH_POINT": ("crash_point", crash_point),
    "NOTIFY_SOCKET": ("notify_socket", str),
}
ANONYMOUS_IS_LOCAL = "with CHATD_AUTH=none set CHATD_ALLOW_ANONYMOUS=1"
SECRETS = ("DATABASE_URL", "ANTHROPIC_API_KEY")


def read_config(environ: Mapping[str, str] = os.environ) -> Config:
    """Return the settings; raises ConfigError that names every mistake, a line each, and never a secret's value."""
    values: dict[str, Any] = {"data_dir": default_data_dir(environ)}
    mistakes = []
    for name, (key, parse) in VARIABLES.items():
        try:
            text = read_variable(name, environ)
            if text:
                values[key] = parse(text)
        except (ValueError, OSError) as error:
            mistakes.append(f"{name}{describe(error)}")
    config = Config(**values, **read_systemd(environ))
    mistakes += check_listening(config)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return config


def read_systemd(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what systemd says to this process, and not to one that it has inherited the environment from.

    https://www.freedesktop.org/software/systemd/man/sd_listen_fds.html, sd_watchdog_enabled.html
    """
    own = str(os.getpid())
    fds = environ.get("LISTEN_FDS", "") if environ.get("LISTEN_PID") == own else ""
    watchdog = environ.get("WATCHDOG_USEC", "") if environ.get("WATCHDOG_PID", own) == own else ""
    return {
        "listen_fds": int(fds) if fds.isdecimal() else 0,
        "watchdog": int(watchdog) / 1e6 if watchdog.isdecimal() else None,
    }


def describe(error: ValueError | OSError) -> str:
    if isinstance(error, OSError):
        return f"_FILE: {error.filename} can't be read: {error.strerror}"
    return ": must be a number" if "literal" in str(error) or "convert" in str(error) else f": {error}"


def read_variable(name: str, environ: Mapping[str, str]) -> str | None:
    """Return a variable, or for a secret what NAME_FILE or a systemd credential holds."""
    if name in environ or name not in SECRETS:
        return environ.get(name)
    if file := environ.get(f"{name}_FILE"):
        return Path(file).read_text(encoding="utf-8").strip()
    credential = Path(environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / name.lower()
    return credential.read_text(encoding="utf-8").strip() if credential.is_file() else None


def default_data_dir(environ: Mapping[str, str]) -> Path:
    if base := environ.get("XDG_DATA_HOME"):
        return Path(base) / "chatd"
    return Path("~/.local/share/chatd").expanduser()


def check_listening(config: Config) -> list[str]:
    """Without tokens anyone who reaches the port may read everything: not beyond this host, unless told so."""
    if config.listen_fds or config.socket or config.allow_anonymous or is_loopback(config.host):
        return []  # a socket that is passed is looked at when it is taken
    return [f"CHATD_HOST: {config.host} is reachable from outside; {ANONYMOUS_IS_LOCAL}"]


def is_loopback(host: str) -> bool:
    """Tell whether a host (a name, or an address with or without brackets) is this machine's own."""
    name = host.strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
