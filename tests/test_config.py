"""Settings: read once, checked together, secrets from files."""

import os
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from chatd.config import Config, read_config
from chatd.errors import ConfigError
from chatd.parsing import Price
from chatd.variables import VARIABLES
from tests.test_docs import cells

README = Path(__file__).parent.parent / "README.md"
# Of each variable: a text, the field that it sets, and to what.
SETTINGS: dict[str, tuple[str, str, Any]] = {
    "DATABASE_URL": ("postgresql://db/x", "database_url", "postgresql://db/x"),
    "CHATD_MIGRATE_URL": ("postgres://db/x", "migrate_url", "postgres://db/x"),
    "CHATD_DATA_DIR": ("/data", "data_dir", Path("/data")),
    "ANTHROPIC_API_KEY": ("sk-1", "api_key", "sk-1"),
    "ANTHROPIC_BASE_URL": ("http://model:8080/x", "base_url", "http://model:8080/x"),
    "CHATD_LOCAL_MODEL": ("/model.gguf", "local_model", Path("/model.gguf")),
    "CHATD_MODEL": ("some-model", "model", "some-model"),
    "CHATD_MAX_TOKENS": ("11", "max_tokens", 11),
    "CHATD_SYSTEM_PROMPT": ("Be brief.", "system_prompt", "Be brief."),
    "CHATD_HOST": ("[::1]", "host", "::1"),
    "CHATD_PORT": ("81", "port", 81),
    "CHATD_SOCKET": ("/run/chatd.sock", "socket", Path("/run/chatd.sock")),
    "CHATD_DB_POOL": ("12", "db_pool", 12),
    "CHATD_CONTEXT_TOKENS": ("13", "context_tokens", 13),
    "CHATD_RETRY_FACTOR": ("1.5", "retry_factor", 1.5),
    "CHATD_FIRST_CONTENT_TIMEOUT": ("2.5", "first_content_timeout", 2.5),
    "CHATD_IDLE_TIMEOUT": ("3.5", "idle_timeout", 3.5),
    "CHATD_TURN_TIMEOUT": ("4.5", "turn_timeout", 4.5),
    "CHATD_FLUSH_INTERVAL": ("5.5", "flush_interval", 5.5),
    "CHATD_HEARTBEAT": ("6.5", "heartbeat", 6.5),
    "CHATD_WRITE_TIMEOUT": ("7.5", "write_timeout", 7.5),
    "CHATD_DRAIN_TIMEOUT": ("8.5", "drain_timeout", 8.5),
    "CHATD_EVENT_RETENTION": ("9.5", "event_retention", 9.5),
    "CHATD_AUTH": ("NONE", "auth", "none"),
    "CHATD_ALLOW_ANONYMOUS": ("1", "allow_anonymous", True),
    "CHATD_JWT_SECRET": ("s" * 32, "jwt_secret", "s" * 32),
    "CHATD_JWT_JWKS_URL": ("https://id.example/jwks", "jwt_jwks_url", "https://id.example/jwks"),
    "CHATD_JWT_ALGORITHMS": ("ES256,EdDSA", "jwt_algorithms", ("ES256", "EdDSA")),
    "CHATD_JWT_ISSUER": ("one, two", "jwt_issuer", ("one", "two")),
    "CHATD_JWT_AUDIENCE": ("one, two", "jwt_audience", ("one", "two")),
    "CHATD_JWT_CHARACTERS_CLAIM": ("pilots", "jwt_characters_claim", "pilots"),
    "CHATD_REQUIRE_CHARACTER": ("1", "require_character", True),
    "CHATD_RATE_MESSAGES": ("14", "rate_messages", 14),
    "CHATD_RATE_TURNS": ("15", "rate_turns", 15),
    "CHATD_RATE_STREAMS": ("16", "rate_streams", 16),
    "CHATD_RATE_TOKENS": ("17", "rate_tokens", 17),
    "CHATD_MAX_TURNS": ("18", "max_turns", 18),
    "CHATD_CORS_ORIGINS": ("https://A.example:443", "cors_origins", frozenset({"https://a.example"})),
    "CHATD_PRICES": ("m=1/2/3/0.5", "prices", {"m": Price(1, 2, 3, 0.5)}),
    "CHATD_AUDIT_KEY": ("a" * 32, "audit_key", "a" * 32),
    "CHATD_TOKEN": ("e.y.J", "token", "e.y.J"),
    "CHATD_LOG_LEVEL": ("debug", "log_level", "debug"),
    "CHATD_LOG_FORMAT": ("json", "log_format", "json"),
    "OTEL_EXPORTER_OTLP_ENDPOINT": ("http://traces:4318", "otlp_endpoint", "http://traces:4318"),
    "CHATD_CRASH_POINT": ("before_commit:2", "crash_point", "before_commit:2"),
    "NOTIFY_SOCKET": ("@notify", "notify_socket", "@notify"),
}
# Their defaults are no values: what is taken depends on the host, or on what else is set.
DEFAULTS_IN_WORDS = {
    *("DATABASE_URL", "CHATD_MIGRATE_URL", "CHATD_DATA_DIR", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
    *("CHATD_LOCAL_MODEL", "CHATD_JWT_ALGORITHMS", "CHATD_JWT_ISSUER", "CHATD_JWT_AUDIENCE", "CHATD_AUDIT_KEY"),
    *("CHATD_TOKEN", "CHATD_LOG_FORMAT"),
}
WITH_TOKENS = " with `jwt`, 0 with `none`"


def test_defaults() -> None:
    config = read_config({})
    assert config == Config(data_dir=Path("~/.local/share/chatd").expanduser())
    assert config.is_local_model
    assert read_config({"XDG_DATA_HOME": "/data"}).data_dir == Path("/data/chatd")


def test_a_user_without_a_home_needs_a_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    def expand(path: Path) -> Path:
        if "~" in path.parts:
            raise RuntimeError("Could not determine home directory.")
        return path

    monkeypatch.setattr(Path, "expanduser", expand)
    with pytest.raises(ConfigError, match=r"^CHATD_DATA_DIR: not set, and this user has no home$"):
        read_config({})
    assert read_config({"XDG_DATA_HOME": "/data"}).data_dir == Path("/data/chatd")
    assert read_config({"CHATD_DATA_DIR": "/data"}).data_dir == Path("/data")


def test_the_tests_do_not_meet_what_a_developer_uses() -> None:
    exported = {
        "DATABASE_URL": "postgresql://mine",
        "CHATD_DATA_DIR": "/mine",
        "PGHOST": "mine",
        "CHATD_REQUIRE_ALL": "1",
    }
    told = subprocess.run(
        [sys.executable, "-c", "import os, sys, tests.conftest; print(*(os.environ.keys() & sys.argv))", *exported],
        env=os.environ | exported,
        cwd=README.parent,
        check=True,
        capture_output=True,
        text=True,
    )
    assert told.stdout == "CHATD_REQUIRE_ALL\n"


def test_empty_means_unset() -> None:
    assert read_config(dict.fromkeys(VARIABLES, "")) == read_config({})


def test_every_mistake_is_named_at_once() -> None:
    wrong = {
        "DATABASE_URL": "mysql://secret@host/db",
        "CHATD_PORT": "http",
        "CHATD_DB_POOL": "0",
        "CHATD_RETRY_FACTOR": "nan",
        "CHATD_IDLE_TIMEOUT": "-1",
        "CHATD_LOG_LEVEL": "loud",
        "CHATD_AUTH": "basic",
        "CHATD_ALLOW_ANONYMOUS": "yes",
        "ANTHROPIC_API_KEY_FILE": "/nonexistent/key",
        "CHATD_HOST": "0.0.0.0",
        "CHATD_SYSTEM_PROMPT": "Be brief\udcff",
        "CHATD_MODEL": "a model\udcff",
        "CHATD_TOKEN": "secr\u00e8t",
    }
    with pytest.raises(ConfigError) as caught:
        read_config(wrong)
    named = {line.partition(":")[0] for line in str(caught.value).splitlines()}
    assert named == set(wrong)
    assert "secr" not in str(caught.value)


def test_a_mistake_does_not_hide_that_tokens_can_not_be_checked() -> None:
    with pytest.raises(ConfigError, match=r"^CHATD_PORT: must be a number\nCHATD_AUTH: jwt needs"):
        read_config({"CHATD_PORT": "x", "CHATD_AUTH": "jwt"})
    with pytest.raises(ConfigError, match=r"^CHATD_JWT_SECRET: .*$"):
        read_config({"CHATD_JWT_SECRET": "short", "CHATD_AUTH": "jwt"})


def test_secrets_from_files(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-1\n")
    (tmp_path / "database_url").write_text("postgresql://db/x\n")
    environ = {"ANTHROPIC_API_KEY_FILE": str(tmp_path / "key"), "CREDENTIALS_DIRECTORY": str(tmp_path)}
    config = read_config(environ)
    assert (config.api_key, config.database_url) == ("sk-1", "postgresql://db/x")
    assert read_config(environ | {"ANTHROPIC_API_KEY": "sk-2"}).api_key == "sk-2"
    assert "sk-1" not in repr(config)


def test_a_credential_without_content_is_not_set(tmp_path: Path) -> None:
    (tmp_path / "database_url").write_text("\n")
    (tmp_path / "chatd_audit_key").write_text("")
    assert read_config({"CREDENTIALS_DIRECTORY": str(tmp_path)}) == read_config({})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.com", ""])
def test_listening_beyond_this_host_has_to_be_allowed(host: str) -> None:
    if host:
        with pytest.raises(ConfigError, match="CHATD_ALLOW_ANONYMOUS"):
            read_config({"CHATD_HOST": host})
    assert read_config({"CHATD_HOST": host, "CHATD_ALLOW_ANONYMOUS": "1"}).allow_anonymous
    assert read_config({"CHATD_HOST": "::1"}).host == "::1"
    assert read_config({"CHATD_SOCKET": "/run/chatd.sock"}).socket == Path("/run/chatd.sock")


def test_every_setting_can_be_set_and_is_in_the_readme() -> None:
    from_systemd = {"listen_fds", "watchdog", "to_journal"}
    assert {field.name for field in fields(Config)} == {key for key, _ in VARIABLES.values()} | from_systemd
    text = README.read_text()
    assert [name for name in VARIABLES if f"`{name}`" not in text] == []


def test_each_variable_sets_its_field_and_no_other() -> None:
    assert SETTINGS.keys() == VARIABLES.keys()
    database = {"DATABASE_URL": "postgresql://db/y"}  # without it CHATD_MIGRATE_URL is a mistake
    for name, (text, field, value) in SETTINGS.items():
        assert read_config(database | {name: text}) == replace(read_config(database), **{field: value}), name


def test_the_defaults_are_those_of_the_readme() -> None:
    plain, with_tokens = read_config({}), read_config({"CHATD_AUTH": "jwt", "CHATD_JWT_SECRET": "s" * 32})
    assert (plain.rate_messages, plain.rate_turns, plain.rate_streams) == (0, 0, 0)
    for variables, default, *_ in cells(README.read_text(), "variable"):
        names = re.findall(r"\w+", variables)
        if DEFAULTS_IN_WORDS.issuperset(names):
            continue
        config = with_tokens if default.endswith(WITH_TOKENS) else plain
        for name, text in zip(names, re.split(", | and ", default.removesuffix(WITH_TOKENS)), strict=True):
            field, parse = VARIABLES[name]
            value = getattr(config, field)
            assert (not value) if text in {"none", "empty"} else value == parse(text.strip("`")), name


@pytest.mark.parametrize(
    ("settings", "mistake"),
    [
        ({}, "CHATD_AUTH"),
        ({"CHATD_JWT_SECRET": "s" * 32, "CHATD_JWT_JWKS_URL": "https://id.example/jwks"}, "CHATD_AUTH"),
        ({"CHATD_JWT_SECRET": "s" * 32, "ANTHROPIC_BASE_URL": "http://[x"}, "ANTHROPIC_BASE_URL"),
        ({"CHATD_JWT_SECRET": "s" * 32, "ANTHROPIC_BASE_URL": "http://"}, "ANTHROPIC_BASE_URL"),
        ({"CHATD_JWT_SECRET": "s" * 32, "ANTHROPIC_BASE_URL": "http://h:x/"}, "ANTHROPIC_BASE_URL"),
        ({"CHATD_JWT_SECRET": "s" * 32, "CHATD_DATA_DIR": "~nobody-at-all/x"}, "CHATD_DATA_DIR"),
        ({"CHATD_JWT_SECRET": "s" * 31}, "CHATD_JWT_SECRET"),
        ({"CHATD_JWT_SECRET": f"-----BEGIN PUBLIC KEY-----{'s' * 31}"}, "CHATD_JWT_SECRET"),
        ({"CHATD_JWT_SECRET": "s" * 32, "CHATD_JWT_AUDIENCE": " , "}, "CHATD_JWT_AUDIENCE"),
        ({"CHATD_JWT_SECRET": "s" * 32, "CHATD_JWT_ISSUER": " "}, "CHATD_JWT_ISSUER"),
        ({"CHATD_JWT_SECRET": "s" * 32, "CHATD_JWT_CHARACTERS_CLAIM": "sub"}, "CHATD_JWT_CHARACTERS_CLAIM"),
        ({"CHATD_JWT_JWKS_URL": f"https://user:{'s' * 31}@id.example/jwks"}, "CHATD_JWT_JWKS_URL"),
        ({"CHATD_JWT_JWKS_URL": "http://id.example/jwks"}, "CHATD_JWT_JWKS_URL"),
        ({"CHATD_JWT_JWKS_URL": "file:///etc/passwd"}, "CHATD_JWT_JWKS_URL"),
        ({"CHATD_JWT_SECRET": "s" * 32, "CHATD_JWT_ALGORITHMS": "none"}, "CHATD_JWT_ALGORITHMS"),
        ({"CHATD_JWT_SECRET": "s" * 32, "CHATD_JWT_ALGORITHMS": "RS256"}, "CHATD_JWT_ALGORITHMS"),
        ({"CHATD_JWT_JWKS_URL": "https://id.example", "CHATD_JWT_ALGORITHMS": "RS256,HS256"}, "CHATD_JWT_ALGORITHMS"),
    ],
)
def test_tokens_that_can_not_be_checked(settings: dict[str, str], mistake: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config({"CHATD_AUTH": "jwt", **settings})
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [mistake]
    assert "s" * 31 not in str(caught.value)


def test_tokens_open_the_server_to_others() -> None:
    config = read_config({"CHATD_AUTH": "jwt", "CHATD_JWT_SECRET": "s" * 32, "CHATD_HOST": "0.0.0.0"})
    assert config.algorithms == ("HS256",)
    eve = read_config({"CHATD_JWT_ISSUER": "login.eveonline.com", "CHATD_JWT_AUDIENCE": " a , b,"})
    assert len(eve.jwt_issuer) == 3
    assert eve.jwt_audience == ("a", "b")
