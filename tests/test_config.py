"""Settings: read once, checked together, secrets from files."""

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from chatd.config import Config, read_config
from chatd.errors import ConfigError
from chatd.variables import VARIABLES

README = Path(__file__).parent.parent / "README.md"


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
        "CHATD_MODEL": "a model",
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
