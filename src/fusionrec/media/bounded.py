"""Decode media that nobody trusts in a few child processes whose memory, time and reach are bounded.

A decoder that crashes, hangs or eats memory takes its child along and nothing else: the file gets a reason code, the
child is replaced, the batch goes on. What the child may do stands in :mod:`fusionrec.media.child`. The parent trusts
no answer either: it reads a JSON header of bounded size and arrays of known types whose size is checked before a byte
of them is read; it never unpickles.

A media module ``fusionrec.media.<name>`` takes part by ``decode(data: bytes, **settings)``, ``describe`` and, as far as
it needs them, the others:

- ``describe(data, value) -> str``: type and size in a few words; raises MediaError for a value that decodes and yet is
  of no use (silence)
- ``pack(value) -> (meta, arrays)`` and ``unpack(meta, arrays) -> value``: how a value that is no single array crosses;
  ``meta`` is JSON, and ``unpack`` raises where they do not fit together
- ``prepare()``: imports and first calls that open files; afterwards the child cannot open any
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import inspect
import json
import math
import os
import queue
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fusionrec.errors import ConfigError
from fusionrec.media import child as far
from fusionrec.media.base import MediaError

CHILDREN = 2
DTYPES = frozenset({"|b1", "|u1", "|i1", "<i2", "<u2", "<i4", "<i8", "<f2", "<f4", "<f8"})
_signature = lru_cache(inspect.signature)
_CODE = re.compile(r"[a-z][a-z0-9_]{0,39}")
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from fusionrec.media.child import start; start()"


@dataclass(frozen=True)
class Limits:
    """Of one request: CPU ``seconds``, ``wall`` seconds by the clock (more: the machine may be busy), bytes of
    ``memory`` beyond the imports, bytes of the ``result``. ``start``: seconds until a child must be ready;
    ``requests`` after which it is replaced (decoders leak)."""

    seconds: float = 20.0
    wall: float = 60.0
    memory: int = 1 << 30
    result: int = 1 << 29
    start: float = 60.0
    requests: int = 2000


class _Ended(Exception):
    """The child is gone, or answers what no child should."""


class _Unheard(_Ended):
    """The child was gone before it had heard the request: not the fault of this file."""


class _Late(Exception):
    """The deadline has passed."""


class Pool:
    """At most ``size`` children for each media module of ``package``, started when first needed. Thread-safe."""

    def __init__(
        self,
        package: str = "fusionrec.media",
        *,
        size: int = CHILDREN,
        limits: Limits = Limits(),
        path: Sequence[str] = (),
    ) -> None:
        self.package, self.size, self.limits = package, size, limits
        self.path = [*path, str(Path(far.__file__).resolve().parents[2]), *(p for p in sys.path if os.path.isabs(p))]
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._slots: dict[str, threading.Semaphore] = {}
        self._idle: dict[str, list[_Child]] = {}
        self._busy: set[_Child] = set()
        self._era = 0
        self._orders: queue.SimpleQueue[tuple[str, Future[_Child]]] = queue.SimpleQueue()
        self._spawner: threading.Thread | None = None

    def decode(self, name: str, data: bytes, **settings: Any) -> Any:
        """``<package>.<name>.decode(data, **settings)``, decoded in a child.

        Raises MediaError: the decoder's own codes, and ``decoder_crashed``, ``decoder_timeout``, ``decoder_memory``.
        TypeError for settings that the decoder does not know; ConfigError where no child can be started.
        """
        module = import_module(f"{self.package}.{name}")
        _signature(module.decode).bind(data, **settings)
        return self._ask(name, data, settings, lambda meta, arrays: _unpacked(module, meta, arrays))

    def probe(self, name: str, data: bytes, **settings: Any) -> str:
        """Decode and throw away; what ``describe`` says of it. Raises as :meth:`decode`."""
        return self._ask(name, data, settings, None)

    def close(self, now: bool = False) -> None:
        """End the children; one that is at work ends after its answer, or ``now``: its request then fails with
        ``decoder_crashed``. The next request starts new ones."""
        with self._lock:
            self._era += 1
            idle = [one for children in self._idle.values() for one in children]
            self._idle.clear()
            for one in self._busy if now else ():
                one.process.kill()
        for one in idle:
            one.end()

    def pids(self) -> list[int]:
        """The idle children's process ids."""
        with self._lock:
            return [one.process.pid for children in self._idle.values() for one in children]

    def _ask(self, name: str, data: bytes, settings: dict[str, Any], value: Callable[..., Any] | None) -> Any:
        request = {"size": len(data), "settings": settings, "value": value is not None}
        with self._lock:
            slot = self._slots.setdefault(name, threading.Semaphore(self.size))
            era = self._era
        with slot:
            try:
                return self._asked(name, request, data, era, value)
            except _Unheard:
                return self._asked(name, request, data, era, value)

    def _asked(
        self, name: str, request: dict[str, Any], data: bytes, era: int, value: Callable[..., Any] | None
    ) -> Any:
        one = self._take(name)
        with self._lock:
            self._busy.add(one)
        sound = False
        try:
            header, arrays = one.ask(request, data, self.limits)
            if "error" in header:
                error = _told(header)
                sound = error.code not in ("decoder_crashed", "decoder_memory")
                raise error
            found = _printable(header["meta"])[:80] if value is None else value(header["meta"], arrays)
            sound = True
            return found
        except (MediaError, _Unheard):
            raise
        except _Late:
            raise MediaError("decoder_timeout", f"not decoded within {self.limits.wall:g} s") from None
        except _Ended as why:
            raise one.verdict(str(why)) from None
        except (TypeError, ValueError, KeyError, IndexError, AttributeError, RecursionError):
            raise MediaError("decoder_crashed", "the decoder's answer makes no sense") from None
        finally:
            self._give_back(name, one, era, sound)

    def _take(self, name: str) -> _Child:
        while True:
            with self._lock:
                idle = self._idle.setdefault(name, [])
                one = idle.pop() if idle else None
            if one is None:
                return self._started(name)
            if one.process.poll() is None:
                return one
            one.end()  # it died while it had nothing to do

    def _give_back(self, name: str, one: _Child, era: int, sound: bool) -> None:
        with self._lock:
            self._busy.discard(one)
            keep = sound and era == self._era and one.requests < self.limits.requests
            if keep:
                self._idle.setdefault(name, []).append(one)
        if not keep:
            one.end()

    def _started(self, name: str) -> _Child:
        """PR_SET_PDEATHSIG fires when the *thread* ends that started the child, so one thread that lives as long as the
        process starts them all; the threads that decode come and go."""
        order: Future[_Child] = Future()
        with self._lock:
            if self._spawner is None:
                self._spawner = threading.Thread(target=self._spawn, name="decoder-spawner", daemon=True)
                self._spawner.start()
        self._orders.put((name, order))
        return order.result()

    def _spawn(self) -> None:
        while True:
            name, order = self._orders.get()
            try:
                order.set_result(_Child(f"{self.package}.{name}", self.path, self.limits))
            except BaseException as error:  # noqa: BLE001  the asking thread raises it
                order.set_exception(error)


class _Child:
    """One process and the two pipes to it."""

    def __init__(self, module: str, path: Sequence[str], limits: Limits) -> None:
        self.requests = 0
        arguments = [module, os.getpid(), limits.memory, limits.seconds]
        keep = {k: os.environ[k] for k in ("LD_LIBRARY_PATH",) if k in os.environ}
        one_thread = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", "-c", _START, json.dumps(list(path)), json.dumps(arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                cwd="/",
                env={"LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "1", **one_thread, **keep},
            )
        except OSError as error:
            raise ConfigError(f"no process for {module} can be started: {error.strerror}") from None
        if self.process.stdin is None or self.process.stdout is None:
            raise AssertionError("both pipes were asked for")
        self.to, self.out = self.process.stdin.fileno(), self.process.stdout.fileno()
        for fd in (self.to, self.out):
            os.set_blocking(fd, False)
            with contextlib.suppress(OSError, AttributeError):  # fewer switches; unprivileged users have a quota
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 1 << 20)
        try:
            hello = self._header(time.monotonic() + limits.start)
        except (_Late, _Ended) as error:
            self.end()
            hello = {"failed": str(error) or f"no sign of life within {limits.start:g} s"}
        if not hello.get("ready"):
            self.end()
            raise ConfigError(
                f"the decoder {module} does not start: {_printable(hello.get('failed'))}; expected the packages of "
                "requirements.lock"
            )

    def ask(self, request: dict[str, Any], data: bytes, limits: Limits) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Send a request; -> the header of the answer and its arrays."""
        deadline = time.monotonic() + limits.wall
        self.requests += 1
        # One write where the pipe takes it: the child wakes up once.
        self._write(far.frame(request) + data if len(data) < 1 << 19 else far.frame(request), deadline)
        if len(data) >= 1 << 19:
            self._write(data, deadline)
        header = self._header(deadline)
        return header, [] if "error" in header else self._arrays(header.get("arrays", []), limits.result, deadline)

    def _header(self, deadline: float) -> dict[str, Any]:
        (length,) = far.LENGTH.unpack(self._read(far.LENGTH.size, deadline).tobytes())
        if length > far.MAX_HEADER:
            raise _Ended("its answer is too long")
        try:
            header = json.loads(bytes(self._read(length, deadline)))
        except (ValueError, RecursionError):
            raise _Ended("its answer is no JSON") from None
        if not isinstance(header, dict):
            raise _Ended("its answer is no mapping")
        return header

    def _arrays(self, forms: Any, most: int, deadline: float) -> list[np.ndarray]:
        """The arrays behind a header, each on a buffer of its own; sizes are checked before anything is read."""
        checked: list[tuple[np.dtype[Any], tuple[int, ...]]] = []
        for form in forms if isinstance(forms, list) else [None]:
            match form:
                case [str(dtype), list(shape)] if dtype in DTYPES and len(shape) <= 6:
                    if not all(type(n) is int and 0 <= n <= most for n in shape):
                        raise _Ended("it announced an impossible array")
                    checked.append((np.dtype(dtype), tuple(shape)))
                case _:
                    raise _Ended("it announced what is no array")
        sizes = [dtype.itemsize * math.prod(shape) for dtype, shape in checked]
        if sum(sizes) > most:
            raise _Ended("its result is too large")
        return [
            self._read(size, deadline).view(dtype).reshape(shape)
            for size, (dtype, shape) in zip(sizes, checked, strict=True)
        ]

    def _read(self, size: int, deadline: float) -> np.ndarray:
        buffer = np.empty(size, np.uint8)
        view = buffer.data
        while view:
            try:
                got = os.readv(self.out, [view])
            except BlockingIOError:
                self._wait(self.out, select.POLLIN, deadline)
                continue
            if not got:
                raise _Ended
            view = view[got:]
        return buffer

    def _write(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.to, view) :]
            except BlockingIOError:
                self._wait(self.to, select.POLLOUT, deadline)
            except BrokenPipeError:  # a child reads the whole request before it looks at it
                raise _Unheard from None

    @staticmethod
    def _wait(fd: int, event: int, deadline: float) -> None:
        left = deadline - time.monotonic()
        poll = select.poll()
        poll.register(fd, event)
        if left <= 0 or not poll.poll(left * 1000):
            raise _Late

    def verdict(self, why: str) -> MediaError:
        """Why the child is gone, as a reason code."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0 if why else 5)
        number = -(self.process.returncode or 0)
        if number == signal.SIGXCPU:
            return MediaError("decoder_timeout", "not decoded within its CPU time")
        if not why:
            why = f"it was ended by {signal.Signals(number).name}" if number > 0 else "it ended without an answer"
        return MediaError("decoder_crashed", f"the decoder failed: {why}")

    def end(self) -> None:
        """Kill and bury; safe to call twice."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _unpacked(module: ModuleType, meta: Any, arrays: list[np.ndarray]) -> Any:
    if hasattr(module, "unpack"):
        return module.unpack(meta, arrays)
    (array,) = arrays
    return array


def _told(header: dict[str, Any]) -> MediaError:
    """The child's own reason, as far as it is one."""
    code = header["error"]
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        return MediaError("decoder_crashed", "the decoder's answer makes no sense")
    return MediaError(code, _printable(header.get("message")))


def _printable(text: Any) -> str:
    return "".join(c if c.isprintable() else "?" for c in str(text)[:200])


_shared: Pool | None = None
_making = threading.Lock()


def shared() -> Pool:
    """The pool of this process (a forked child gets its own)."""
    global _shared
    with _making:
        if _shared is None or _shared.pid != os.getpid():
            _shared = Pool()
            atexit.register(_shared.close)
        return _shared


def decode(name: str, data: bytes, **settings: Any) -> Any:
    """:meth:`Pool.decode` of the shared pool."""
    return shared().decode(name, data, **settings)


def probe(name: str, data: bytes, **settings: Any) -> str:
    """:meth:`Pool.probe` of the shared pool."""
    return shared().probe(name, data, **settings)


def close(now: bool = False) -> None:
    """:meth:`Pool.close` of the shared pool; nothing where none was used."""
    if _shared is not None and _shared.pid == os.getpid():
        _shared.close(now)
