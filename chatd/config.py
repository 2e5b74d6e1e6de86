"""The settings: read from the environment here and nowhere else, every mistake reported at once, by name.

What systemd says there is read by chatd.systemd.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chatd.errors import ConfigError
from chatd.parsing import HS256, PUBLIC_KEY_ALGORITHMS, Price, is_loopback
from chatd.systemd import read_systemd
from chatd.variables import SECRETS, VARIABLES


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the environment says; secrets are kept out of the representation.

    A limit (see chatd.limits) of 0 is none. `crash_point` is for the fault suite. The last four are systemd's: how
    many sockets it passes, where it hears of the service's state, the seconds within which it wants to be told that the
    service is alive, and whether standard error is its journal.
    """

    database_url: str | None = field(default=None, repr=False)
    migrate_url: str | None = field(default=None, repr=False)
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
    jwt_secret: str | None = field(default=None, repr=False)
    jwt_jwks_url: str | None = None
    jwt_algorithms: tuple[str, ...] = ()
    jwt_issuer: tuple[str, ...] = ()
    jwt_audience: tuple[str, ...] = ()
    jwt_characters_claim: str = "character_ids"
    require_character: bool = False
    rate_messages: int = 0
    rate_turns: int = 0
    rate_streams: int = 0
    rate_tokens: int = 0
    max_turns: int = 2000
    cors_origins: frozenset[str] = frozenset()
    prices: Mapping[str, Price] = field(default_factory=dict)
    audit_key: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    log_level: str = "info"
    log_format: str | None = None
    otlp_endpoint: str | None = None
    crash_point: str | None = None
    listen_fds: int = 0
    notify_socket: str | None = None
    watchdog: float | None = None
    to_journal: bool = False

    @property
    def is_open(self) -> bool:
        """Tell whether others than this host's own programs may reach the server."""
        return self.auth != "none" or self.allow_anonymous

    @property
    def algorithms(self) -> tuple[str, ...]:
        """Return what tokens may be signed with."""
        return self.jwt_algorithms or ((HS256,) if self.jwt_secret else ("RS256", "ES256"))

    @property
    def is_local_model(self) -> bool:
        return self.api_key is None and self.base_url is None


LIMITS_WITH_TOKENS = {"rate_messages": 60, "rate_turns": 4, "rate_streams": 20}  # where nothing else is set
ANONYMOUS_IS_LOCAL = "with CHATD_AUTH=none set CHATD_ALLOW_ANONYMOUS=1"


def read_config(environ: Mapping[str, str] = os.environ) -> Config:
    """Return the settings; raises ConfigError that names every mistake, a line each, and never a secret's value."""
    values: dict[str, Any] = {"data_dir": Path()}
    mistakes = []
    for name, (key, parse) in VARIABLES.items():
        try:
            text = read_variable(name, environ)
            if text:
                values[key] = parse(text)
            elif key == "data_dir":
                values[key] = default_data_dir(environ)
        except (ValueError, OSError) as error:
            mistakes.append(f"{name}{describe(error)}")
    if values.get("auth") == "jwt":
        values = LIMITS_WITH_TOKENS | values
    config = Config(**values, **read_systemd(environ))
    mistakes += check_listening(config)
    if config.migrate_url and not config.database_url:
        mistakes.append("CHATD_MIGRATE_URL: goes with DATABASE_URL, which the server uses")
    if not any(mistake.startswith(("CHATD_AUTH", "CHATD_JWT_")) for mistake in mistakes):
        mistakes += check_tokens(config)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return config


def describe(error: ValueError | OSError) -> str:
    if isinstance(error, OSError):
        return f"_FILE: {error.filename} can't be read: {error.strerror}"
    return ": must be a number" if "literal" in str(error) or "convert" in str(error) else f": {error}"


def public_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment for processes that need none of the secrets; OpenTelemetry's headers may hold some.

    PostgreSQL's variables (PGPORT, PGTZ) are meant for another one than the embedded.
    """
    private = ("OTEL_", "PG")
    return {name: value for name, value in environ.items() if name not in SECRETS and not name.startswith(private)}


def read_variable(name: str, environ: Mapping[str, str]) -> str | None:
    """Return a variable, or for a secret what its file holds."""
    file = secret_files(environ).get(name)
    return file.read_text(encoding="utf-8").strip() if file else environ.get(name)


def secret_files(environ: Mapping[str, str] = os.environ) -> dict[str, Path]:
    """Return the files that secrets are read from, by name: NAME_FILE's, or systemd's credentials."""
    credentials = Path(environ.get("CREDENTIALS_DIRECTORY", "/nonexistent"))
    files = {name: Path(environ.get(f"{name}_FILE") or credentials / name.lower()) for name in SECRETS}
    return {
        name: file
        for name, file in files.items()
        if not environ.get(name) and (environ.get(f"{name}_FILE") or file.is_file())
    }


def default_data_dir(environ: Mapping[str, str]) -> Path:
    if base := environ.get("XDG_DATA_HOME"):
        return Path(base) / "chatd"
    try:
        return Path("~/.local/share/chatd").expanduser()
    except RuntimeError:
        raise ValueError("not set, and this user has no home") from None


def check_listening(config: Config) -> list[str]:
    """Without tokens anyone who reaches the port may read everything: not beyond this host, unless told so."""
    if config.is_open or config.listen_fds or config.socket or is_loopback(config.host):
        return []  # a socket that is passed is looked at when it is taken
    return [f"CHATD_HOST: {config.host} is reachable from outside; {ANONYMOUS_IS_LOCAL}"]


def check_tokens(config: Config) -> list[str]:
    """A secret or a provider's keys, and algorithms that fit: with both, a public key might pass for a secret."""
    if config.auth != "jwt":
        return []
    if (config.jwt_secret is None) == (config.jwt_jwks_url is None):
        return ["CHATD_AUTH: jwt needs CHATD_JWT_SECRET or CHATD_JWT_JWKS_URL, one of the two"]
    fitting = (HS256,) if config.jwt_secret else PUBLIC_KEY_ALGORITHMS
    if not set(config.jwt_algorithms) <= set(fitting):
        kind = "a secret" if config.jwt_secret else "a JWKS"
        return [f"CHATD_JWT_ALGORITHMS: with {kind} these can be used: {', '.join(fitting)}"]
    return []
