"""The streams of one clip on one axis of time: what is heard and read in the very windows that are seen.

Second 0 is the clip's first frame. The windows are those of :mod:`fusionrec.media.video`; sound and subtitles, whose
streams may begin earlier or later, are cut at the windows' own seconds. Subtitles are the first text track inside the
file, or cues (SubRip, WebVTT) that the catalogue holds.

Error codes: those of video and audio, ``no_subtitles`` (neither a text track nor cues), ``no_words`` (none within the
windows).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fusionrec.media import audio, video
from fusionrec.media.base import MediaError
from fusionrec.types import Float32

MAX_BYTES = video.MAX_BYTES
MAX_CUES, MAX_CHARS = 20_000, 1_000  # of a file; of a window
RECIPE = f"{video.RECIPE};{audio.RECIPE};cues-v1"
"""Names everything in this file that changes what is heard or read."""

SUBTITLES = ("mov_text", "subrip", "srt", "webvtt", "ass", "ssa", "text")
_TIME = r"(?:(\d{1,3}):)?(\d{1,2}):(\d{2})[.,](\d{3})"
_CUE = re.compile(rf"^\s*{_TIME}\s*-->\s*{_TIME}[^\n]*\n(.*?)(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)
_MARKUP = re.compile(r"<[^<>]{0,80}>|\{\\[^{}]{0,80}\}")


@dataclass(frozen=True, eq=False)
class Track:
    """W windows of one clip. ``windows`` (W, 2) float64: first and last second of each; ``sounds``: W arrays (N_w,)
    float32 mono at 16 kHz, empty where the track does not reach; ``words``: W texts, "" where nobody speaks."""

    windows: NDArray[np.float64]
    sounds: tuple[Float32, ...]
    words: tuple[str, ...]


def decode(
    data: bytes,
    *,
    stream: Literal["sound", "words"],
    windows: int = video.WINDOWS,
    max_seconds: float = video.MAX_SECONDS,
    cues: str = "",
) -> Track:
    """One stream of a clip in the clip's windows; ``cues`` in place of a text track. Raises MediaError."""
    axis, zero = video.axis(data, windows=windows, max_seconds=max_seconds)
    nothing: tuple[Float32, ...] = tuple(np.zeros(0, np.float32) for _ in axis)
    if stream == "sound":
        return Track(axis, _sounds(data, axis, zero), tuple("" for _ in axis))
    read = list(spoken(cues)) if cues else list(_track(data, zero, float(axis[-1, 1])))
    return Track(axis, nothing, tuple(_within(read, begin, end) for begin, end in axis.tolist()))


def describe(data: bytes, track: Track) -> str:
    """ "3 windows"."""
    return f"{len(track.windows)} windows"


def pack(track: Track) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """(JSON, arrays) of a track, to cross from one process to another."""
    sizes = [len(sound) for sound in track.sounds]
    return {"words": list(track.words), "sizes": sizes}, [track.windows, np.concatenate(track.sounds)]


def unpack(meta: dict[str, Any], arrays: Sequence[NDArray[Any]]) -> Track:
    """The track that :func:`pack` took apart. Raises ValueError where the parts do not fit together."""
    windows, samples = arrays
    words, sizes = tuple(map(str, meta["words"])), [int(n) for n in meta["sizes"]]
    shapes = windows.shape == (len(words), 2) and len(sizes) == len(words) and samples.shape == (sum(sizes),)
    if not shapes or samples.dtype != np.float32 or min(sizes, default=0) < 0:
        raise ValueError("these arrays are no track")
    return Track(windows, tuple(np.split(samples, np.cumsum(sizes)[:-1])), words)


def prepare() -> None:
    """As for clips and sounds, and the decoders of subtitles."""
    import contextlib

    import av

    video.prepare()
    audio.prepare()
    for name in SUBTITLES:
        with contextlib.suppress(ValueError):  # a build without this decoder
            av.CodecContext.create(name, "r")


def spoken(cues: str) -> Iterator[tuple[float, float, str]]:
    """(first second, last second, words) of each cue of a SubRip or WebVTT text; what is no cue is passed over."""
    text = cues.replace("\r\n", "\n").replace("\r", "\n")
    for number, cue in enumerate(_CUE.finditer(text)):
        if number == MAX_CUES:
            return
        parts = cue.groups()
        begin, end = (
            int(h or 0) * 3600 + int(m) * 60 + int(s) + int(ms) / 1000 for h, m, s, ms in (parts[:4], parts[4:8])
        )
        words = " ".join(_MARKUP.sub("", parts[8]).split())
        if words and end > begin:
            yield begin, end, words


def _within(cues: Sequence[tuple[float, float, str]], begin: float, end: float) -> str:
    """The words of the cues that are shown in a window, in order; a cue that stands still is read once."""
    shown = [words for first, last, words in sorted(cues) if first < end and last > begin]
    return "\n".join(dict.fromkeys(shown))[:MAX_CHARS]


def _sounds(data: bytes, axis: NDArray[np.float64], zero: float) -> tuple[Float32, ...]:
    """``zero``: the time of the clip's first frame by the container's clock."""
    offset = _begins(data) - zero
    heard = audio.decode(data, max_seconds=max(float(axis[-1, 1]) - offset, audio.MIN_SECONDS))
    places = np.clip(np.round((axis - offset) * audio.RATE), 0, len(heard)).astype(np.int64)
    return tuple(heard[first:last] for first, last in places.tolist())


def _begins(data: bytes) -> float:
    """At which second of the container's clock the sound begins. Raises MediaError ``no_audio_stream``."""
    with video.opened(data) as container:
        if not container.streams.audio:
            raise MediaError("no_audio_stream", "the clip has no sound track")
        stream = container.streams.audio[0]
        return float((stream.start_time or 0) * (stream.time_base or 0))


def _track(data: bytes, zero: float, end: float) -> Iterator[tuple[float, float, str]]:
    """The cues of the first text track, up to second ``end`` of the clip."""
    with video.opened(data, SUBTITLES) as container:
        stream = next((s for s in container.streams.subtitles if s.codec_context.name in SUBTITLES), None)
        if stream is None:
            raise MediaError("no_subtitles", "the clip has no text track, and the catalogue holds no cues")
        for number, packet in enumerate(container.demux(stream)):
            if packet.size == 0 or packet.pts is None:
                continue
            begin = float(packet.pts * stream.time_base) - zero
            if number == MAX_CUES or begin > end:
                return
            last = begin + float((packet.duration or 0) * stream.time_base)
            for line in packet.decode():
                words = " ".join(_MARKUP.sub("", _plain(line)).split())
                if words:
                    yield begin, last, words


def _plain(line: Any) -> str:
    """The words of a decoded line, which is Advanced SubStation: eight fields and the text, ``\\N`` for a new line."""
    found = line.dialogue if hasattr(line, "dialogue") else b""
    text = found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
    return text.replace("\\N", " ").replace("\\n", " ")
