"""The decoder's side of :mod:`fusionrec.media.bounded`: one process that decodes bytes which nobody trusts.

It imports one media module (no torch, no polars: about 0.1 s), gives up what a decoder has no use for, and then answers
requests until its parent is gone. What is given up, and by what means:

- memory: RLIMIT_AS, what the imports took plus a fixed allowance; disk and dumps: RLIMIT_FSIZE 0, RLIMIT_CORE 0
- time: RLIMIT_CPU, set anew for each request (the parent also kills by the clock)
- files and sockets: RLIMIT_NOFILE 0 forbids every new descriptor, so nothing can be opened, connected or listened to
- network: an own, empty network namespace, where the kernel allows it (CLONE_NEWUSER, CLONE_NEWNET)
- privileges: no capabilities and no new ones (capset, PR_SET_NO_NEW_PRIVS), so that not even root's decoder can raise a
  limit again
- outliving: PR_SET_PDEATHSIG; an end of the request pipe ends it too

This bounds what broken files cost, and what a decoder that was taken over can reach: no file that is not open, no
network, no secret of the parent's environment (it is not handed on). It is no full sandbox: system calls are not
filtered, so it does not protect against holes in the kernel, and code that took a decoder over can signal processes of
the same user.

Both directions speak frames: the length of a JSON header (u32, little endian), the header, then raw bytes whose size
the header names. Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import math
import os
import resource
import signal
import struct
import sys
from types import ModuleType
from typing import Any

LENGTH = struct.Struct("<I")
MAX_HEADER = 1 << 16
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_CAPABILITY_VERSION_3 = 0x20080522


def frame(header: dict[str, Any]) -> bytes:
    """The length and the JSON of a header."""
    body = json.dumps(header).encode()
    return LENGTH.pack(len(body)) + body


def main(name: str, parent: int, memory: int, seconds: float) -> None:
    """Serve the media module ``name`` on descriptors 0 and 1; ``memory`` bytes beyond the imports and ``seconds`` of
    CPU time a request."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, who ends this process
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before it could be watched
        return
    try:
        module = importlib.import_module(name)
        getattr(module, "prepare", lambda: None)()
        confine(libc, memory)
    except BaseException as error:  # noqa: BLE001  whatever it is, the parent has to hear of it
        _write(1, frame({"failed": f"{type(error).__name__}: {error}"[:500]}))
        return
    _write(1, frame({"ready": True}))
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            serve(module, seconds)


def confine(libc: ctypes.CDLL, memory: int) -> None:
    """Give up files, network, privileges and memory; see the head of this module."""
    with open("/proc/self/statm", encoding="ascii") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET):  # forbidden on some machines; RLIMIT_NOFILE stays
        libc.unshare(_CLONE_NEWNET)
    libc.capset((ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)())
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a change of credentials may have cleared it
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_AS, taken + memory),
        (resource.RLIMIT_NOFILE, 0),
    ):
        _limit(kind, most)


def _limit(kind: int, most: int, for_ever: bool = True) -> None:
    hard = resource.getrlimit(kind)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most if for_ever else hard))


def serve(module: ModuleType, seconds: float) -> None:
    """Answer one request. Raises EOFError where the parent has closed the pipe."""
    (length,) = LENGTH.unpack(_read(0, LENGTH.size))
    request = json.loads(_read(0, length))
    data = _read(0, request["size"])
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime + seconds), for_ever=False)
    header, arrays = answer(module, request, data)
    _write(1, frame(header), *(memoryview(array).cast("B") for array in arrays if array.size))


def answer(module: ModuleType, request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], list[Any]]:
    """The reply's header and the arrays that follow it. A decoder's exception of any kind becomes a reason code."""
    try:
        value = module.decode(data, **request["settings"])
        if not request["value"]:
            return {"meta": str(module.describe(data, value))[:80]}, []
        meta, arrays = module.pack(value) if hasattr(module, "pack") else ({}, [value])
        import numpy as np

        arrays = [np.ascontiguousarray(array) for array in arrays]
        return {"meta": meta, "arrays": [[a.dtype.str, list(a.shape)] for a in arrays]}, arrays
    except MemoryError:
        return {"error": "decoder_memory", "message": "it does not fit into the memory of a decoder"}, []
    except Exception as error:
        code = getattr(error, "code", None) if type(error).__name__ == "MediaError" else "undecodable"
        return {"error": code, "message": (str(error) or type(error).__name__)[:200]}, []


def _read(fd: int, size: int) -> bytes:
    """Exactly ``size`` bytes; EOFError where there are less."""
    parts = []
    while size:
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _write(fd: int, *parts: bytes | memoryview) -> None:
    """All parts, in one call where the pipe takes it: the parent wakes up once."""
    views = [memoryview(part) for part in parts]
    while views:
        done = os.writev(fd, views)
        while views and done >= len(views[0]):
            done -= len(views.pop(0))
        if views:
            views[0] = views[0][done:]


def start() -> None:
    """What ``python -c`` runs; the arguments come as JSON behind the import path."""
    name, parent, memory, seconds = json.loads(sys.argv[2])
    main(name, parent, memory, seconds)
