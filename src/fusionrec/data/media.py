"""Media files of the catalogue: safe paths, content hashes, and what their headers say.

Only files inside the media root are opened (no "..", no absolute path, no URL, no link that leads out). Hashes are
remembered by (path, size, mtime) in the private state, so that an unchanged file is not read again.
"""

from __future__ import annotations

import hashlib
import io
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fusionrec.media.base import MediaError, resolve
from fusionrec.paths import Paths

PICTURES = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_MEDIA_BYTES = 1 << 30
PROBE = 1  # raise when the header probe changes: remembered formats are then read again


@dataclass(frozen=True)
class Medium:
    """``sha256`` of the bytes (null: not readable); ``format``: "jpeg 640x480", "audio/wav", or null where the header
    is none we know; ``code``: why the file cannot be used, or null."""

    sha256: str | None
    format: str | None = None
    code: str | None = None


def picture_format(data: bytes) -> str | None:
    """ "jpeg 640x480" from magic bytes and header alone (nothing is decoded), or None."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the size limit is a rule of the gate, not of the probe
            old, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                with Image.open(io.BytesIO(data), formats=PICTURES) as picture:
                    return f"{str(picture.format).lower()} {picture.width}x{picture.height}"
            finally:
                Image.MAX_IMAGE_PIXELS = old
    except Exception:  # noqa: BLE001  decoders raise anything on hostile bytes; the answer is the same
        return None


def sound_format(data: bytes) -> str | None:
    """The media type of a sound or clip by its magic bytes, or None."""
    import puremagic

    try:
        found = puremagic.from_string(data[:65536], mime=True)
    except (puremagic.PureError, ValueError):
        return None
    return found if found.split("/")[0] in ("audio", "video", "application") and found else None


class MediaHashes:
    """The memory of file hashes, one sqlite file in the private state."""

    def __init__(self, connection: sqlite3.Connection, root: Path) -> None:
        self.connection, self.root = connection, root
        self.fresh = 0
        connection.execute(
            "CREATE TABLE IF NOT EXISTS media (path TEXT, size INTEGER, mtime INTEGER, kind TEXT, probe INTEGER,"
            " sha256 TEXT, format TEXT, PRIMARY KEY (path, kind))"
        )
        rows = connection.execute("SELECT path, kind, size, mtime, sha256, format FROM media WHERE probe = ?", (PROBE,))
        self.known = {(r[0], r[1]): r[2:] for r in rows}
        self.new: list[tuple[str, int, int, str, int, str, str | None]] = []

    def look(self, relative: str, kind: str) -> Medium:
        """Hash and probe one file of ``kind`` image, audio or video."""
        try:
            path = resolve(self.root, relative)
            stat = path.stat()
            if stat.st_size > MAX_MEDIA_BYTES:
                return Medium(None, code="large_file")
            size, mtime, *rest = self.known.get((str(path), kind), (None, None))
            if (size, mtime) == (stat.st_size, stat.st_mtime_ns):
                return Medium(*rest)
            data = path.read_bytes()
        except MediaError as error:
            return Medium(None, code=error.code)
        except OSError:
            return Medium(None, code="unreadable")
        digest = hashlib.sha256(data).hexdigest()
        form = picture_format(data) if kind == "image" else sound_format(data)
        self.fresh += 1
        self.new.append((str(path), stat.st_size, stat.st_mtime_ns, kind, PROBE, digest, form))
        return Medium(digest, form)

    def keep(self) -> None:
        self.connection.executemany("INSERT OR REPLACE INTO media VALUES (?, ?, ?, ?, ?, ?, ?)", self.new)
        self.connection.commit()


@contextmanager
def hashes(paths: Paths, root: Path) -> Iterator[MediaHashes]:
    """Open the memory; what was learnt is committed at the end. A damaged file is started afresh."""
    folder = paths.home / "media-hashes"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / "hashes.sqlite"
    try:
        connection = sqlite3.connect(file)
        memory = MediaHashes(connection, root)
    except sqlite3.DatabaseError:
        connection.close()
        file.unlink()
        connection = sqlite3.connect(file)
        memory = MediaHashes(connection, root)
    with closing(connection):
        yield memory
        memory.keep()
