"""Safe decoding of a sound: type by magic bytes, caps checked before and while samples are read.

What becomes of unusual files (the code of the MediaError, or how the file is used):

    first bytes of no sound we know (text, a playlist, ...)      unknown_type
    the container promises more bytes or samples than there are  truncated
    no decoder reads it                                          undecodable
    a clip without a sound track                                 no_audio_stream
    no sample, or less than 10 ms                                empty_audio
    NaN or infinite samples                                      not_finite
    more than ``max_channels`` channels                          too_many_channels
    a sample rate outside 4,000 to 384,000 Hz                    bad_sample_rate
    longer than ``max_seconds``                                  only the beginning is read
    peak above 1 (float files, overshoot)                        scaled down to 1
    any bit depth, rate or channel count within the caps         resampled (soxr, HQ), channels averaged
    silence                                                      finite zeros; see :func:`silent`

An MP3, ADTS or Matroska file that was cut cannot be told from a shorter one and is used as it is.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusionrec.media.base import MediaError
from fusionrec.types import Float32

RATE = 16_000
MAX_BYTES = 64 * 2**20
MAX_SECONDS = 60.0
MAX_CHANNELS = 8
MIN_SECONDS = 0.01
LOWEST_RATE, HIGHEST_RATE = 4_000, 384_000
SLACK_SECONDS = 0.25  # a promise of samples that is missed by less is a matter of codec delay, not a cut file
SILENCE = 1e-4  # -80 dB of full scale: below the last bits of 16-bit sound and its dither
BLOCK = 1 << 16  # samples read at once
RECIPE = "mono-mean,soxr-hq,peak<=1,v1"
"""Names everything in this file that changes samples; part of the fingerprint of every sound encoder."""

# Our name -> FFmpeg's demuxer. It is named, never guessed: probing would let a text become a playlist.
_DEMUXERS = {
    "WAV": "wav",
    "FLAC": "flac",
    "OGG": "ogg",
    "MP3": "mp3",
    "AIFF": "aiff",
    "MP4": "mov",
    "MATROSKA": "matroska",
    "AAC": "aac",
    "AVI": "avi",
}
_SOUNDFILE = ("WAV", "FLAC", "OGG", "MP3", "AIFF")


def sniff(data: bytes) -> str | None:
    """A name of :data:`_DEMUXERS` by the first bytes (never by the file's name); else None."""
    if data[:4] in (b"RIFF", b"RF64", b"BW64") and data[8:12] == b"WAVE":
        return "WAV"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "AVI"
    if data.startswith(b"fLaC"):
        return "FLAC"
    if data.startswith(b"OggS"):
        return "OGG"
    if data[:4] == b"FORM" and data[8:12] in (b"AIFF", b"AIFC"):
        return "AIFF"
    if data[4:8] == b"ftyp":
        return "MP4"
    if data.startswith(b"\x1a\x45\xdf\xa3"):
        return "MATROSKA"
    if data.startswith(b"ID3"):
        return "MP3"
    return _frame_sync(data)


def _frame_sync(data: bytes) -> str | None:
    """MP3 (layers II and III) or ADTS by a frame header (ISO 11172-3, 2.4.1.3; ISO 13818-7, 6.2)."""
    if len(data) < 4 or data[0] != 0xFF or data[1] & 0xE0 != 0xE0:
        return None
    version, layer = data[1] >> 3 & 3, data[1] >> 1 & 3
    if data[1] & 0xF6 == 0xF0:
        return "AAC" if data[2] >> 2 & 15 < 13 else None
    plausible = version != 1 and layer in (1, 2) and data[2] >> 4 not in (0, 15) and data[2] >> 2 & 3 != 3
    return "MP3" if plausible else None


@dataclass(frozen=True)
class _Opened:
    """``blocks`` yields (n, channels) float32; ``promised``: samples by the header, None where it does not say."""

    rate: int
    channels: int
    promised: int | None
    blocks: Iterator[np.ndarray]


def decode(
    data: bytes, *, rate: int = RATE, max_seconds: float = MAX_SECONDS, max_channels: int = MAX_CHANNELS
) -> Float32:
    """The first ``max_seconds`` as (N,) float32 mono in [-1, 1] at ``rate`` Hz, N >= 1.

    Memory is that of the result and of one block, however long the file. Raises MediaError with the codes of this page.
    """
    kind = sniff(data)
    if kind is None:
        raise MediaError("unknown_type", f"first bytes {data[:4].hex()}; expected {', '.join(_DEMUXERS)}")
    if _cut_off(data, kind):
        raise MediaError("truncated", f"the {kind} container promises more than its {len(data)} bytes")
    with _one_error(), _open(data, kind, max_seconds) as sound:
        if not LOWEST_RATE <= sound.rate <= HIGHEST_RATE:
            raise MediaError("bad_sample_rate", f"found {sound.rate} Hz, expected {LOWEST_RATE} to {HIGHEST_RATE}")
        if sound.channels > max_channels:
            raise MediaError("too_many_channels", f"found {sound.channels} channels, expected at most {max_channels}")
        return _mono(sound, rate, max_seconds)


def silent(sound: Float32) -> bool:
    """Whether a decoded sound never rises above -80 dB of full scale."""
    return float(np.abs(sound).max(initial=0.0)) < SILENCE


def describe(data: bytes, sound: Float32) -> str:
    """ "flac, 12.3 s" (as far as it was read). Raises MediaError ``silent``: silence decodes, yet says nothing."""
    if silent(sound):
        raise MediaError("silent", f"found {len(sound) / RATE:.1f} s without a sample above -80 dB")
    return f"{str(sniff(data)).lower()}, {len(sound) / RATE:.1f} s"


def prepare() -> None:
    """Import the decoders and use each once: a confined process cannot open their files later."""
    import av
    import soundfile

    for form, container in (("WAV", "wav"), ("FLAC", "flac")):
        out = io.BytesIO()
        soundfile.write(out, np.zeros(800), 8_000, format=form)
        decode(out.getvalue())
        with av.open(io.BytesIO(out.getvalue()), format=container) as opened:
            next(opened.decode(audio=0))


def _mono(sound: _Opened, rate: int, max_seconds: float) -> Float32:
    """Average the channels and resample, block by block."""
    import soxr

    stream = None if sound.rate == rate else soxr.ResampleStream(sound.rate, rate, 1, dtype="float32", quality="HQ")
    wanted = round(max_seconds * sound.rate)
    found, parts = 0, []
    for block in sound.blocks:
        block = block[: wanted - found]
        if not np.isfinite(block).all():
            raise MediaError("not_finite", f"NaN or infinite samples within {len(block)} after sample {found}")
        found += len(block)
        mono = block.mean(axis=1, dtype=np.float64).astype(np.float32)
        parts.append(mono if stream is None else stream.resample_chunk(mono))
        if found >= wanted:
            break
    if sound.promised is not None and min(sound.promised, wanted) - found > SLACK_SECONDS * sound.rate:
        raise MediaError("truncated", f"found {found} samples, the header promises {sound.promised}")
    if found < MIN_SECONDS * sound.rate:
        raise MediaError("empty_audio", f"found {found} samples at {sound.rate} Hz, expected at least 10 ms")
    if stream is not None:
        parts.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    out: Float32 = np.concatenate(parts)[: max(round(max_seconds * rate), 1)]
    if not np.isfinite(out).all():  # values near the largest float overflow in the filter
        raise MediaError("not_finite", "the samples are too large to be resampled")
    return out / max(float(np.abs(out).max()), 1.0)


def _open(data: bytes, kind: str, max_seconds: float) -> Any:
    """A context manager that gives an :class:`_Opened`: by libsndfile where it knows the format, else by FFmpeg."""
    if kind in _SOUNDFILE:
        import soundfile

        source = io.BytesIO(data)
        try:
            file = soundfile.SoundFile(source)
            if kind != "FLAC" or _promises(file):  # libsndfile seeks to the end of a FLAC that does not say where it is
                return _by_soundfile(file, source, max_seconds)
            file.close()
        except soundfile.LibsndfileError:
            pass  # e.g. MP3 in a WAV container, Speex in Ogg
    return _by_ffmpeg(data, kind)


def _promises(file: Any) -> bool:
    """Whether the header says how many samples there are: a streaming writer's does not."""
    return bool(0 <= file.frames < 1 << 60)


@contextmanager
def _by_soundfile(file: Any, source: io.BytesIO, max_seconds: float) -> Generator[_Opened, None, None]:
    from soundfile import LibsndfileError

    def blocks() -> Iterator[np.ndarray]:
        # No sample beyond max_seconds is asked for, so that damage behind it does no harm.
        for left in range(round(max_seconds * file.samplerate), 0, -BLOCK):
            try:
                block = file.read(min(left, BLOCK), dtype="float32", always_2d=True)
            except LibsndfileError as error:
                over = source.tell() >= len(source.getbuffer())
                raise MediaError("truncated" if over else "undecodable", error.error_string[:120]) from None
            yield block
            if len(block) < min(left, BLOCK):
                return

    with file:
        yield _Opened(file.samplerate, file.channels, file.frames if _promises(file) else None, blocks())


@contextmanager
def _by_ffmpeg(data: bytes, kind: str) -> Generator[_Opened, None, None]:
    import av

    # The bytes are all there is: no protocol is allowed, so a reference to another file or host is not followed.
    options = {"protocol_whitelist": "none", "format_whitelist": _DEMUXERS[kind]}
    with av.open(
        io.BytesIO(data), mode="r", format=_DEMUXERS[kind], options=options, metadata_errors="ignore"
    ) as container:
        if not container.streams.audio:
            raise MediaError("no_audio_stream", f"the {kind} file has no sound track")
        stream = container.streams.audio[0]
        stream.codec_context.thread_count = 1
        frames = iter(container.decode(stream))
        first = next(frames, None)
        if first is None:
            raise MediaError("empty_audio", "found 0 samples, expected at least 10 ms")
        rate, channels = first.sample_rate, first.layout.nb_channels

        def blocks() -> Iterator[np.ndarray]:
            yield _floats(first)
            for frame in frames:
                if (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
                    raise MediaError("undecodable", "the sample rate or the channels change within the sound")
                yield _floats(frame)

        yield _Opened(rate, channels, None, blocks())


def _floats(frame: Any) -> np.ndarray:
    """One frame of FFmpeg as (n, channels) float32, integers scaled to [-1, 1)."""
    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    middle = 128.0 if values.dtype.kind == "u" else 0.0
    return ((values - middle) / 2.0 ** (8 * values.dtype.itemsize - 1)).astype(np.float32)


@contextmanager
def _one_error() -> Generator[None, None, None]:
    """The decoders' many kinds of exception become one, with a code and without memory addresses."""
    try:
        yield
    except MediaError:
        raise
    except MemoryError:
        raise MediaError("undecodable", "the sound does not fit into memory") from None
    except Exception as error:
        text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or type(error).__name__
        raise MediaError("undecodable", str(text)[:120]) from None


def _cut_off(data: bytes, kind: str) -> bool:
    """Whether the container's own lengths lead beyond the end of ``data``. Lengths that say "unknown" never do."""
    if kind in ("WAV", "AIFF") and len(data) >= 8:
        size = struct.unpack_from("<I" if data[:1] == b"R" else ">I", data, 4)[0]
        unknown = size == 0 or size >= 0x7FFF0000  # streaming writers, RF64
        return data[:4] in (b"RIFF", b"FORM") and not unknown and size + 8 > len(data) + 1024
    if kind == "OGG":  # the last page: header of 27 bytes, a table of segment lengths, the segments (RFC 3533)
        last = data.rfind(b"OggS")
        table = data[last + 27 : last + 27 + data[last + 26]] if last + 26 < len(data) else b""
        return last + 26 >= len(data) or last + 27 + data[last + 26] + sum(table) > len(data)
    at = 0
    while kind == "MP4" and at + 16 <= len(data):  # boxes of the top level (ISO 14496-12, 4.2)
        size = struct.unpack_from(">I", data, at)[0]
        if size == 1:
            size = struct.unpack_from(">Q", data, at + 8)[0]
        if size == 0:  # "to the end of the file"
            return False
        at += max(size, 8)
    return at > len(data)
