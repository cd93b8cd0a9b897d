"""HMAC-SHA256 signatures of verdicts, with a key that never leaves the project's private folder."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from fusionrec.errors import ConfigError

_BYTES = 32


def verdict_key(keys: Path) -> bytes:
    """The key in ``keys``/verdict.key (32 random bytes, mode 0600, folder 0700), made at its first use.

    Two processes that make it at once get the same key. ConfigError where the file is no key or others may read it.
    """
    path = keys / "verdict.key"
    keys.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        keys.chmod(0o700)
        temporary = keys / f".verdict.{secrets.token_hex(8)}.tmp"
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # unlike a rename, this never replaces a key that another process made
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    key = path.read_bytes()
    if len(key) != _BYTES:
        raise ConfigError(f"verdict.key holds {len(key)} bytes, expected {_BYTES}: restore or delete it")
    if path.stat().st_mode & 0o077:
        raise ConfigError("verdict.key can be read by others: chmod 600 it")
    return key


def sign(text: str, key: bytes) -> str:
    """Hex HMAC-SHA256 of a text."""
    return hmac.new(key, text.encode("utf-8"), hashlib.sha256).hexdigest()


def matches(text: str, signature: str, key: bytes) -> bool:
    """Compared in constant time; a signature of any other form does not match."""
    return hmac.compare_digest(sign(text, key).encode(), signature.encode("utf-8", "replace"))
