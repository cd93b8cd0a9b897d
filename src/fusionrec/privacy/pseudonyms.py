"""Pseudonyms of users: HMAC-SHA256 of the raw id under a key that lives outside the data.

An unkeyed hash of an id can be undone by trying all ids (ENISA, "Pseudonymisation techniques and best
practices", 2019); with a separately held key it cannot. Losing the key means that old and new pseudonyms no
longer match, so the key is made once and never overwritten.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import unicodedata
from pathlib import Path

import polars as pl

from fusionrec.errors import ConfigError
from fusionrec.paths import Paths

KEY_BYTES = 32
KEY_NAME = "pseudonym.key"
DIGITS = 32


def key(paths: Paths) -> bytes:
    """The project's pseudonym key, made on first use (0600 in a 0700 folder).

    Raises ConfigError where the file does not hold exactly 32 bytes.
    """
    path = paths.keys / KEY_NAME
    if not path.exists():
        _create(path)
    value = path.read_bytes()
    if len(value) != KEY_BYTES:
        raise ConfigError(
            f"{KEY_NAME} holds {len(value)} bytes, expected {KEY_BYTES}: restore it from a backup; a new key would"
            " give every user a new pseudonym"
        )
    return value


def _create(path: Path) -> None:
    """Write a fresh key so that two runs at once agree on one: the link fails where a key exists already."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.parent.chmod(0o700)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, secrets.token_bytes(KEY_BYTES))
        os.fsync(descriptor)
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        os.close(descriptor)
        temporary.unlink()


def pseudonym(raw: str, key: bytes) -> str:
    """32 lower-case hex digits of HMAC-SHA256(key, NFC(raw))."""
    message = unicodedata.normalize("NFC", raw).encode("utf-8", "surrogatepass")
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:DIGITS]


def pseudonymise(series: pl.Series, key: bytes) -> pl.Series:
    """A String series of raw ids -> their pseudonyms, same length and name; null stays null."""
    raw = series.drop_nulls().unique()
    if len(raw) == 0:
        return series.cast(pl.String)
    return series.replace_strict(raw, pl.Series([pseudonym(r, key) for r in raw.to_list()], dtype=pl.String))
