"""What every media reader shares: the error with a reason code, and safe, bounded reads below one folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath


class MediaError(ValueError):
    """A media file that is not used. ``code`` is a stable reason (``truncated``, ``too_many_pixels``, ...)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def resolve(root: Path, relative: str) -> Path:
    """The file ``relative`` (POSIX) below ``root``.

    Never a URL, never an absolute path, never out of ``root``: neither by ``..`` nor by a symbolic link.
    Raises MediaError ``unsafe_path``, ``missing_file`` or ``not_a_file``.
    """
    pure = PurePosixPath(relative)
    if (
        not relative
        or "\0" in relative
        or "\\" in relative
        or "://" in relative
        or pure.is_absolute()
        or ".." in pure.parts
        or relative.startswith("~")
    ):
        raise MediaError("unsafe_path", f"found {relative[:80]!r}, expected a path below the media folder")
    base = root.resolve()
    try:
        path = (base / pure).resolve(strict=True)
    except FileNotFoundError:
        raise MediaError("missing_file", f"{relative[:80]!r} does not exist below the media folder") from None
    except (OSError, RuntimeError, ValueError):
        raise MediaError("unsafe_path", f"{relative[:80]!r} cannot be followed (a loop or a bad name)") from None
    if not path.is_relative_to(base):
        raise MediaError("unsafe_path", f"{relative[:80]!r} leads out of the media folder")
    if not path.is_file():
        raise MediaError("not_a_file", f"{relative[:80]!r} is not a regular file")
    return path


def read(root: Path, relative: str, max_bytes: int, sha256: str | None = None) -> bytes:
    """The bytes of a file below ``root``, at most ``max_bytes``, with the sha256 (hex) that was recorded.

    Raises MediaError: as :func:`resolve`, and ``empty_file``, ``too_many_bytes``, ``unreadable``, ``changed_on_disk``.
    """
    path = resolve(root, relative)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            # The size is asked first so that a huge file is refused without being read.
            data = file.read(max_bytes + 1) if size <= max_bytes else b""
    except OSError as error:
        raise MediaError("unreadable", f"{relative[:80]!r}: {error.strerror}") from None
    if size > max_bytes or len(data) > max_bytes:
        raise MediaError("too_many_bytes", f"{relative[:80]!r}: found {size} bytes, expected at most {max_bytes}")
    if not data:
        raise MediaError("empty_file", f"{relative[:80]!r} holds 0 bytes")
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise MediaError("changed_on_disk", f"{relative[:80]!r} is not the file that ingest read; run ingest again")
    return data
