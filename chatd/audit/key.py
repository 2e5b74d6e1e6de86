"""The key that the audit is chained with: from the settings, or made once, in a file that only this user reads."""

import hashlib
import hmac
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path

from chatd.config import Config
from chatd.errors import ConfigError
from chatd.parsing import secret

FILE = "audit.key"
ID_SIZE = 4  # bytes


class AuditKey:
    """Signs values. A signature begins with its key's id, which tells another key's from one that is wrong."""

    def __init__(self, text: str) -> None:
        self.secret = text.encode()
        self.id = hashlib.sha256(self.secret).digest()[:ID_SIZE]

    def sign(self, *values: str | int | None) -> bytes:
        text = json.dumps(values, separators=(",", ":"))
        return self.id + hmac.digest(self.secret, text.encode(), "sha256")

    def made(self, signature: bytes, *values: str | int | None) -> bool:
        """Tell whether a signature is this key's, of these values."""
        return hmac.compare_digest(signature, self.sign(*values))

    def is_own(self, signature: bytes) -> bool:
        return signature[:ID_SIZE] == self.id

    def owner_id(self, name: str) -> str:
        """Return what the audit calls an owner: nobody finds the name by it who has not the key."""
        return f"own-{self.sign('owner', name)[ID_SIZE:].hex()[:32]}"


def read_audit_key(config: Config, *, make: bool = False) -> AuditKey:
    """Return the key; raises ConfigError where there is none, and none is to be made."""
    if config.audit_key is not None:
        return AuditKey(config.audit_key)
    path = config.data_dir / FILE
    try:
        if make:
            make_key(path)
        return AuditKey(secret(path.read_text(encoding="utf-8").strip()))
    except FileNotFoundError:
        raise ConfigError(f"CHATD_AUDIT_KEY: not set, and there is no {path}: use the server's settings") from None
    except OSError as error:
        raise ConfigError(f"CHATD_AUDIT_KEY: {path} can't be used: {error.strerror}") from error
    except ValueError:
        raise ConfigError(f"CHATD_AUDIT_KEY: {path} holds no key") from None


def make_key(path: Path) -> None:
    """Make the file where there is none: whole, or not at all, whoever else makes it, too."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f"{FILE}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(f"{secrets.token_hex(32)}\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
