"""Media files of the catalogue: safe paths, content hashes, and whether their content decodes.

Only files inside the media root are opened (no "..", no absolute path, no URL, no link that leads out). Every content
is decoded once, in bounded child processes, so that the gate can say of each file why it is not used. What was found
is remembered in the private state: hashes by (path, size, mtime, ctime), verdicts by content, so that an unchanged
file is neither read nor decoded again. (Copying can keep a size and an mtime; no ordinary tool sets a ctime back.)
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock

from fusionrec.media import audio, bounded, image, video
from fusionrec.media.base import MediaError, resolve
from fusionrec.paths import Paths

READERS = {"image": image, "audio": audio, "video": video}
MAX_MEDIA_BYTES = 1 << 30
PROBE = 3  # raise when verdicts change for another reason than a reader's RECIPE: every content is then decoded again
PASSING = frozenset({"decoder_crashed", "decoder_timeout", "decoder_memory"})
"""Verdicts that a busy machine may have caused: they hold for this run and are not remembered."""
KEEP_EVERY = 500  # new facts after which they are committed
_FILE = "INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?)"
_VERDICT = "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?)"


@dataclass(frozen=True)
class Medium:
    """``sha256`` of the bytes (null: not readable, ``code`` says why); ``format``: "jpeg 640x480", "audio/wav", or null
    where the content does not decode: then ``fault`` is the reason code."""

    sha256: str | None
    format: str | None = None
    fault: str | None = None
    code: str | None = None


Progress = Callable[[int, int], None]
"""Called with (files done, files)."""


def silent(done: int, total: int) -> None:
    """A progress that shows nothing."""


class MediaMemory:
    """What is known of files and contents, in one sqlite connection."""

    def __init__(self, connection: sqlite3.Connection, root: Path, progress: Progress = silent) -> None:
        self.connection, self.root, self.progress = connection, root, progress
        self.fresh = self.decoded = 0
        self._working: dict[tuple[str, str], Lock] = {}
        self._learnt: list[tuple[str, tuple[str | int | None, ...]]] = []
        for earlier in ("media", "files"):  # of earlier versions
            connection.execute(f"DROP TABLE IF EXISTS {earlier}")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS hashes (path TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, ctime INTEGER,"
            " sha256 TEXT)"
        )
        connection.execute(
            "CREATE TABLE IF NOT EXISTS verdicts (sha256 TEXT, kind TEXT, probe TEXT, format TEXT, fault TEXT,"
            " PRIMARY KEY (sha256, kind))"
        )
        found = connection.execute("SELECT path, sha256, size, mtime, ctime FROM hashes")
        self.files = {path: (sha, tuple(state)) for path, sha, *state in found}
        self.verdicts = {
            (sha, kind): (form, fault)
            for sha, kind, probe, form, fault in connection.execute("SELECT * FROM verdicts")
            if kind in READERS and probe == _probe(kind)
        }

    def look(self, paths: Sequence[str], kind: str) -> list[Medium]:
        """Hash and decode files of ``kind`` image, audio or video; -> one Medium a path, in order."""
        distinct = list(dict.fromkeys(paths))
        found: dict[str, Medium] = {}
        threads = ThreadPoolExecutor(2 * bounded.CHILDREN, thread_name_prefix="look")  # they wait for the decoders
        try:
            for path, medium in zip(distinct, threads.map(partial(self._look, kind=kind), distinct), strict=True):
                found[path] = medium
                self.progress(len(found), len(distinct))
                if len(self._learnt) >= KEEP_EVERY:
                    self.keep()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            bounded.close(now=True)
            raise
        finally:
            threads.shutdown()
            bounded.close()
            self.keep()
        return [found[path] for path in paths]

    def _look(self, relative: str, kind: str) -> Medium:
        try:
            path = resolve(self.root, relative)
            stat = path.stat()
            if stat.st_size > MAX_MEDIA_BYTES:
                return Medium(None, code="large_file")
            state = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            sha, remembered = self.files.get(str(path), (None, None))
            data = None
            if state != remembered or sha is None:
                sha, data = _read(path, READERS[kind].MAX_BYTES)
                self.files[str(path)] = (sha, state)
                self._learnt.append((_FILE, (str(path), *state, sha)))
                self.fresh += 1
            with self._working.setdefault((sha, kind), Lock()):  # the same content may be met twice at once
                if (sha, kind) not in self.verdicts:
                    if data is None:
                        sha, data = _read(path, READERS[kind].MAX_BYTES)
                    form, fault = self.verdicts[sha, kind] = _decoded(data, kind)
                    if fault not in PASSING:
                        self._learnt.append((_VERDICT, (sha, kind, _probe(kind), form, fault)))
                    self.decoded += 1
        except MediaError as error:
            return Medium(None, code=error.code)
        except OSError:
            return Medium(None, code="unreadable")
        return Medium(sha, *self.verdicts[sha, kind])

    def keep(self) -> None:
        """Commit what was learnt."""
        learnt, self._learnt = self._learnt, []
        for statement, values in learnt:
            self.connection.execute(statement, values)
        self.connection.commit()


def _probe(kind: str) -> str:
    return f"{PROBE} {READERS[kind].RECIPE}"


def _read(path: Path, most: int) -> tuple[str, bytes | None]:
    """(sha256, the bytes, or None where they are more than ``most``)."""
    with open(path, "rb") as file:
        data = file.read(most + 1)
        if len(data) <= most:
            return hashlib.sha256(data).hexdigest(), data
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest(), None


def _decoded(data: bytes | None, kind: str) -> tuple[str | None, str | None]:
    """(format, None), or (None, why it does not decode)."""
    if not data:
        return None, "too_many_bytes" if data is None else "empty_file"
    try:
        return bounded.probe(kind, data), None
    except MediaError as error:
        return None, error.code


@contextmanager
def memory(paths: Paths, root: Path, progress: Progress = silent) -> Iterator[MediaMemory]:
    """Open the memory of a project. A damaged file is started afresh."""
    folder = paths.home / "media-hashes"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / "hashes.sqlite"
    connection = sqlite3.connect(file)
    try:
        found = MediaMemory(connection, root, progress)
    except sqlite3.DatabaseError:
        connection.close()
        file.unlink()
        connection = sqlite3.connect(file)
        found = MediaMemory(connection, root, progress)
    with closing(connection):
        yield found
