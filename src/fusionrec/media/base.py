"""What every media reader shares: the error with a reason code, and safe, bounded reads below one folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePosixPath

EXPECTED = {
    "unsafe_path": "a path inside the media folder, no URL",
    "missing_file": "a file in the media folder",
    "not_a_file": "a regular file",
    "large_file": "a file below 1 GiB",
    "unreadable": "a file that may be read",
    "empty_file": "a file with content",
    "too_many_bytes": "a file within the limit of its kind (docs/contracts.md)",
    "unknown_type": "content of a type that is read (docs/contracts.md), whatever the file's name",
    "truncated": "a whole file; this one ends too early",
    "undecodable": "a file without damage",
    "too_many_pixels": "fewer pixels",
    "no_video_stream": "a file with moving pictures",
    "no_frames": "a file with moving pictures",
    "unsupported_codec": "a codec that is read",
    "no_audio_stream": "a file with a sound track",
    "no_subtitles": "a clip with a text track, or cues in the catalogue",
    "no_words": "subtitles within the windows that are looked at",
    "empty_audio": "10 ms of sound or more",
    "not_finite": "samples that are numbers",
    "too_many_channels": "fewer channels",
    "bad_sample_rate": "a sample rate of 4 to 384 kHz",
    "silent": "something to hear",
    "decoder_crashed": "a file that does not crash its decoder",
    "decoder_timeout": "a file that decodes in time",
    "decoder_memory": "a file that decodes within 1 GiB",
}
"""Reason code -> what was expected instead, in the words of the quarantine. The codes of all readers meet here."""


def expected(code: str) -> str:
    """:data:`EXPECTED`, for any code."""
    return EXPECTED.get(code, "a file that decodes")


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
