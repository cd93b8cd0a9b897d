"""Safe decoding of a clip: type by magic bytes, one fixed demuxer, caps on everything, and only the frames that
encoders look at.

No file and no network is opened here: the bytes are handed over, playlists are no known type, and whatever else a
demuxer would like to open is refused. Headers are not believed: length and rate are those of the packets that are
really there.

Error codes: ``unknown_type``, ``too_many_bytes``, ``truncated`` (the file ends before its own structure does),
``no_video_stream``, ``unsupported_codec``, ``too_many_pixels``, ``no_frames`` (a stream without a packet),
``undecodable`` (fewer than half of the wanted frames came out), ``decoder_memory``.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fusionrec.media.base import MediaError

MAX_BYTES = 128 * 2**20
MAX_PIXELS = 9_000_000  # a frame of 4K; the decoder may keep 16 of them
MAX_SECONDS = 600.0
MAX_PACKETS = 50_000
MAX_FRAMES = 900  # decoded for one clip, however far apart its key frames are
MAX_DECODED_PIXELS = 2_000_000_000  # the same in pixels: 900 frames of 1080p, 240 of 4K
SIDE, LONG_SIDE = 160, 320
WINDOWS, WINDOW_SECONDS = 3, 2.0
SPREAD, DENSE, DENSE_RATE = 8, 16, 15.0
RECIPE = f"rgb<={SIDE}x{LONG_SIDE},{WINDOW_SECONDS:g}s,spread{SPREAD},dense{DENSE}@{DENSE_RATE:g},upright,v1"
"""Names everything in this file that changes frames; part of the fingerprint of every encoder of clips."""

DEMUXERS = {"MP4": "mov", "MATROSKA": "matroska", "AVI": "avi"}
CODECS = (
    "h264", "hevc", "libdav1d", "av1", "vp8", "vp9", "mpeg4", "msmpeg4", "msmpeg4v2", "mpeg1video", "mpeg2video",
    "h263", "mjpeg", "prores", "theora", "ffv1", "rawvideo",
)  # fmt: skip
_STILLS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis")  # pictures in the same box format
_SEGMENT = b"\x18\x53\x80\x67"

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Clip:
    """What encoders see of a clip: W windows (1 to the number asked for) of at most :data:`WINDOW_SECONDS`, spread
    evenly.

    ``frames`` (F, h, w, 3) uint8 RGB, upright, distinct, in time order; ``times`` (F,) float64 seconds from the first
    frame of the clip; ``spread`` (W, 8) and ``dense`` (W, 16) int16: rows of ``frames``, in time order, -1 at the end
    where the clip is shorter: a window's frames spread over all of it, and its middle at 15 a second (at the clip's
    own rate where that is lower). ``duration`` seconds; ``width``, ``height`` of the source in pixels, as stored.
    """

    frames: NDArray[np.uint8]
    times: NDArray[np.float64]
    spread: NDArray[np.int16]
    dense: NDArray[np.int16]
    duration: float
    width: int
    height: int


@dataclass(frozen=True)
class _Window:
    """Packet numbers in decoding order: the frames to keep, and what has to be decoded for them."""

    spread: list[int]
    dense: list[int]
    first: int
    last: int


def sniff(data: bytes) -> str | None:
    """MP4 (also MOV), MATROSKA (also WebM) or AVI by the first bytes, never by the file's name; None for anything
    else."""
    if data[4:8] == b"ftyp" and data[8:12] not in _STILLS:
        return "MP4"
    if data.startswith(b"\x1a\x45\xdf\xa3") and (b"matroska" in data[:96] or b"webm" in data[:96]):
        return "MATROSKA"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "AVI"
    return None


def decode(
    data: bytes,
    *,
    windows: int = WINDOWS,
    max_seconds: float = MAX_SECONDS,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> Clip:
    """The windows of a clip. Only its first ``max_seconds`` count; a window that lies more than :data:`MAX_FRAMES`
    frames (or :data:`MAX_DECODED_PIXELS`) of decoding away is left out. Raises MediaError with a code of the list
    above.
    """
    _checked(data, max_bytes)
    return _guarded(lambda: _decode(data, windows, max_seconds, max_pixels))


def axis(
    data: bytes, *, windows: int = WINDOWS, max_seconds: float = MAX_SECONDS, max_bytes: int = MAX_BYTES
) -> tuple[NDArray[np.float64], float]:
    """First and last second (W, 2) of the windows that :func:`decode` looks at, counted from the clip's first frame,
    and the time of that frame by the container's clock. Nothing is decoded. Raises MediaError."""
    _checked(data, max_bytes)

    def seconds() -> tuple[NDArray[np.float64], float]:
        with opened(data) as container:
            stream = _video_stream(container)
            pixels = int(stream.codec_context.width) * int(stream.codec_context.height)
            packets, times, zero = _packets(container, stream, max_seconds)
            chosen = _within(_windows(packets, times, windows), _budget(pixels))
        step = 1 / _rate(times)
        ends = [(times[w.spread].min(), times[w.spread].max() + step) for w in chosen]
        return np.array(ends, np.float64), zero

    return _guarded(seconds)


def _checked(data: bytes, max_bytes: int) -> None:
    kind = sniff(data)
    if kind is None:
        raise MediaError("unknown_type", f"first bytes {data[:8].hex()}; expected MP4, MOV, Matroska, WebM or AVI")
    if len(data) > max_bytes:
        raise MediaError("too_many_bytes", f"found {len(data)} bytes, expected at most {max_bytes}")
    if not _complete(data, kind):
        raise MediaError("truncated", f"the {kind} file ends before its own structure does")


def _budget(pixels: int) -> int:
    """Frames that may be decoded where one has so many pixels."""
    return max(1, min(MAX_FRAMES, MAX_DECODED_PIXELS // max(pixels, 1)))


def opened(data: bytes, codecs: Sequence[str] = (), max_pixels: int = MAX_PIXELS) -> Any:
    """The container, to be closed by ``with``: by its own demuxer, with the decoders of clips and ``codecs`` alone,
    nothing else may be opened."""
    import av

    limits = {"codec_whitelist": ",".join((*CODECS, *codecs)), "max_streams": "32", "probesize": str(2**20)}
    options = {"max_pixels": str(max_pixels), "threads": "1"}
    return av.open(
        io.BytesIO(data),
        "r",
        format=DEMUXERS[str(sniff(data))],
        options=options | limits,
        io_open=_refused,
        metadata_errors="ignore",
    )


def describe(data: bytes, clip: Clip) -> str:
    """ "mp4 160x90, 2.0 s", for data that decodes."""
    return f"{str(sniff(data)).lower()} {clip.width}x{clip.height}, {clip.duration:.1f} s"


def pack(clip: Clip) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """(JSON, arrays) of a clip, to cross from one process to another."""
    meta = {"duration": clip.duration, "width": clip.width, "height": clip.height}
    return meta, [clip.frames, clip.times, clip.spread, clip.dense]


def unpack(meta: dict[str, Any], arrays: Sequence[NDArray[Any]]) -> Clip:
    """The clip that :func:`pack` took apart. Raises ValueError where the parts do not fit together."""
    frames, times, spread, dense = arrays
    ok = (
        frames.dtype == np.uint8
        and frames.ndim == 4
        and frames.shape[3] == 3
        and times.shape == frames.shape[:1]
        and spread.dtype == dense.dtype == np.int16
        and spread.shape[1:] == (SPREAD,)
        and dense.shape == (len(spread), DENSE)
        and all(-1 <= rows.min(initial=-1) and rows.max(initial=-1) < len(frames) for rows in (spread, dense))
    )
    if not ok:
        raise ValueError("these arrays are no clip")
    return Clip(frames, times, spread, dense, float(meta["duration"]), int(meta["width"]), int(meta["height"]))


def prepare() -> None:
    """Import what :func:`decode` needs, and open once what it opens: by decoding a clip of two frames."""
    import av

    small = io.BytesIO()
    with av.open(small, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for shade in (0, 255):
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), shade, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    decode(small.getvalue())
    for name in CODECS:
        with contextlib.suppress(ValueError):  # a build without this decoder
            av.CodecContext.create(name, "r")


def _complete(data: bytes, kind: str) -> bool:
    """Whether the outermost boxes, chunks or elements lie inside the bytes (and an MP4 has its index)."""
    if kind == "AVI":
        return int.from_bytes(data[4:8], "little") <= len(data) - 8
    if kind == "MATROSKA":
        at = data.find(_SEGMENT, 4, 4096)
        if at < 0 or at + 5 > len(data) or not data[at + 4]:
            return False
        width = 9 - data[at + 4].bit_length()  # a size of 1 to 8 bytes; all ones: unknown, as live recorders write it
        size = int.from_bytes(data[at + 4 : at + 4 + width], "big") & ((1 << 7 * width) - 1)
        return size == (1 << 7 * width) - 1 or at + 4 + width + size <= len(data)
    at, index = 0, False
    while at + 8 <= len(data):
        size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        elif size == 0:
            size = len(data) - at
        index |= name == b"moov"
        if size < 8 or at + size > len(data):  # padding at the end is common and harmless
            return index and name not in (b"mdat", b"moov", b"moof")
        at += size
    return index


def _guarded(step: Callable[[], T]) -> T:
    """A decoder's many kinds of exception become one, with a code."""
    try:
        return step()
    except MediaError:
        raise
    except MemoryError:
        raise MediaError("decoder_memory", "it does not fit into the memory of a decoder") from None
    except Exception as error:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise MediaError("undecodable", str(text)[:120]) from None


def _refused(url: str, flags: int, options: dict[str, str]) -> Any:
    raise PermissionError(f"a clip may not open {url[:40]!r}")


def _decode(data: bytes, windows: int, max_seconds: float, max_pixels: int) -> Clip:
    with opened(data, max_pixels=max_pixels) as container:
        stream = _video_stream(container)
        context = stream.codec_context
        width, height = int(context.width), int(context.height)
        if width * height > max_pixels:
            raise MediaError(
                "too_many_pixels", f"found frames of {width} x {height}, expected at most {max_pixels} pixels"
            )
        context.options, context.thread_count = {"max_pixels": str(max_pixels), "threads": "1"}, 1
        packets, times, _ = _packets(container, stream, max_seconds)
        chosen = _within(_windows(packets, times, windows), _budget(width * height))
        wanted = sorted({k for w in chosen for k in (*w.spread, *w.dense) if k <= w.last}, key=lambda k: (times[k], k))
        found = dict(_frames(context, packets, chosen, set(wanted)))
    if 2 * len(found) < len(wanted):
        raise MediaError("undecodable", f"{len(found)} of {len(wanted)} frames could be decoded")
    kept = [k for k in wanted if k in found]
    row = {k: n for n, k in enumerate(kept)}
    return Clip(
        frames=np.stack([found[k] for k in kept]),
        times=np.array([times[k] for k in kept]),
        spread=_rows([[row[k] for k in w.spread if k in row] for w in chosen], SPREAD),
        dense=_rows([[row[k] for k in w.dense if k in row] for w in chosen], DENSE),
        duration=float(times.max() + 1 / _rate(times)),
        width=width,
        height=height,
    )


def _video_stream(container: Any) -> Any:
    """The first stream of moving pictures; the cover of a song is none."""
    moving = [s for s in container.streams.video if "attached_pic" not in str(s.disposition).lower()]
    if not moving:
        raise MediaError("no_video_stream", f"found {len(container.streams)} stream(s), none of them video")
    codec = moving[0].codec_context
    if codec is None or codec.name not in CODECS:
        name = codec.name if codec is not None else "one without a decoder"
        raise MediaError("unsupported_codec", f"found {name}, expected one of {', '.join(CODECS)}")
    return moving[0]


def _packets(container: Any, stream: Any, max_seconds: float) -> tuple[list[Any], NDArray[np.float64], float]:
    """The packets in decoding order; the time (N,) in seconds at which each one's frame is shown, from 0; and where 0
    lies by the container's clock.

    Each packet is stamped with its number, so that frames are told apart even where the file's own times are wrong.
    """
    packets: list[Any] = []
    stamps: list[int] = []
    base = float(stream.time_base or 0)
    for packet in container.demux(stream):
        if packet.size == 0:
            continue
        stamp = packet.pts if packet.pts is not None else packet.dts
        stamps.append(int(stamp) if stamp is not None else (stamps[-1] if stamps else 0))
        if len(packets) == MAX_PACKETS or (stamps[-1] - stamps[0]) * base > max_seconds:
            break
        packet.pts = packet.dts = len(packets)
        packets.append(packet)
    if not packets:
        raise MediaError("no_frames", "the video stream holds no packet")
    at = np.array(stamps[: len(packets)], np.float64)
    return packets, (at - at.min()) * base, float(at.min() * base)


def _rate(times: NDArray[np.float64]) -> float:
    """Frames a second, from the median step; 15 where the times say nothing."""
    steps = np.diff(np.sort(times))
    step = float(np.median(steps)) if len(steps) else 0.0
    return float(np.clip(1 / step, 1, 240)) if step > 0 else DENSE_RATE


def _windows(packets: Sequence[Any], times: NDArray[np.float64], count: int) -> list[_Window]:
    """At most ``count`` windows in time order. They are counted in frames, so that odd times cannot empty one."""
    shown = [k for k in np.lexsort((np.arange(len(times)), times)).tolist() if not packets[k].is_discard]
    keys = [k for k, packet in enumerate(packets) if packet.is_keyframe] or [0]
    n, rate = len(shown), _rate(times)
    if not n:
        raise MediaError("no_frames", "every frame is marked as not to be shown")
    length = max(DENSE, round(WINDOW_SECONDS * rate))
    count = int(np.clip(np.ceil(n / length - 0.25), 1, count))
    room = max(0, n - length)
    starts = np.round(np.linspace(0, room, count)).astype(int).tolist() if count > 1 else [room // 2]
    out = []
    for start in starts:
        inside = shown[start : start + length]
        spread = np.unique(np.round(np.linspace(0, len(inside) - 1, SPREAD)).astype(int))
        step = max(1, min(round(rate / DENSE_RATE), (len(inside) - 1) // (DENSE - 1)))
        begin = max(0, (len(inside) - (DENSE - 1) * step - 1) // 2)
        dense = range(begin, len(inside), step)[:DENSE]
        window = [inside[p] for p in spread], [inside[p] for p in dense]
        wanted = [*window[0], *window[1]]
        # A frame can be decoded from the last key frame that comes before it both in the file and on the screen.
        earliest, first_time = min(wanted), min(times[k] for k in wanted)
        before = [k for k in keys if k <= earliest and times[k] <= first_time]
        out.append(_Window(*window, before[-1] if before else 0, max(wanted)))
    return out


def _within(windows: Sequence[_Window], budget: int) -> list[_Window]:
    """The windows that can be had for decoding ``budget`` frames in all; the first one is always there, if cut
    short."""
    out: list[_Window] = []
    done = -1
    for window in windows:
        cost = window.last - max(window.first, done + 1) + 1
        if cost <= budget:
            out.append(window)
            budget -= max(cost, 0)
            done = max(done, window.last)
    if not out:
        first = windows[0].first
        last = first + budget - 1
        reached = sorted(k for k in range(first, min(last, windows[0].last) + 1))
        out = [_Window(_evenly(reached, SPREAD), reached[:DENSE], first, last)]
    return out


def _evenly(values: Sequence[int], count: int) -> list[int]:
    places = np.unique(np.round(np.linspace(0, len(values) - 1, count)).astype(int))
    return [values[p] for p in places]


def _frames(
    context: Any, packets: Sequence[Any], windows: Sequence[_Window], wanted: set[int]
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """(packet number, frame) of the wanted packets; damaged packets are passed over."""
    from av.error import FFmpegError

    done, size = -1, None
    for number, window in enumerate(windows):
        following = windows[number + 1] if number + 1 < len(windows) else None
        goes_on = following is not None and following.first <= window.last + 1
        todo: list[Any] = [packets[k] for k in range(max(window.first, done + 1), min(window.last + 1, len(packets)))]
        done = max(done, window.last)
        for packet in todo if goes_on else [*todo, None]:  # None: what the decoder still holds back
            try:
                frames = context.decode(packet)
            except FFmpegError:
                continue
            for frame in frames:
                if frame.pts in wanted:
                    size = size or _scaled(frame.width, frame.height)
                    yield frame.pts, _upright(frame, *size)
        if not goes_on:
            context.flush_buffers()


def _scaled(width: int, height: int) -> tuple[int, int]:
    """(w, h) with at most SIDE on the short and LONG_SIDE on the long side; never larger than the source."""
    scale = min(1.0, SIDE / min(width, height), LONG_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _upright(frame: Any, width: int, height: int) -> NDArray[np.uint8]:
    """(h, w, 3) uint8 RGB; a phone that was held sideways says so in a display matrix."""
    rgb = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA", threads=1).to_ndarray()
    return np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90) % 4))


def _rows(rows: Sequence[Sequence[int]], width: int) -> NDArray[np.int16]:
    out = np.full((len(rows), width), -1, np.int16)
    for n, row in enumerate(rows):
        out[n, : len(row)] = row
    return out
