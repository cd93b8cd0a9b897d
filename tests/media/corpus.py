"""Broken, odd and hostile media files, built in memory; each with the reason code it must end with (None: it is used).

Nothing here is random, so the files and their hashes are the same in every run.
"""

from __future__ import annotations

import io
import struct
import wave
import zlib
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import soundfile
from PIL import Image


@dataclass(frozen=True)
class Broken:
    """One file of the corpus: ``kind`` image, audio or video."""

    kind: str
    name: str
    data: bytes
    code: str | None


def files(port: int = 9) -> list[Broken]:
    """The corpus; ``port``: of the listener on loopback that no file may make anybody call."""
    out: list[Broken] = []
    for kind, found in (("image", pictures()), ("audio", sounds()), ("video", clips(port))):
        out += [Broken(kind, name, data, code) for name, (data, code) in found.items()]
    return out


# ---- pictures


def encoded(picture: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def texture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Coloured waves: nothing that a decoder could leave out unnoticed."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (3 + seed % 5) + c) + np.cos(y / (4 + seed % 3) - c) for c in range(3)]
    return Image.fromarray(np.stack([(w + 2) * 63 for w in waves], axis=-1).astype(np.uint8))


def png_header(width: int, height: int) -> bytes:
    """A PNG of a few dozen bytes that claims to be large."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")


def pictures() -> dict[str, tuple[bytes, str | None]]:
    jpeg = encoded(texture(230, 170), "JPEG", quality=90)
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = texture(40, 30, 1).quantize(16)
    frames = [texture(36, 28, n) for n in range(4)]
    sixteen = np.linspace(0, 65535, 50 * 40).astype(np.uint16).reshape(40, 50)
    return {
        "whole.jpg": (jpeg, None),
        "half.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "header.jpg": (jpeg[:640], "truncated"),
        "half.png": (encoded(texture(60, 50), "PNG")[:-2000], "truncated"),
        "bomb.png": (png_header(20_000, 10_000), "too_many_pixels"),
        "garbage.png": (b"\x89PNG\r\n\x1a\n" + b"\xab" * 64, "undecodable"),
        "cmyk.jpg": (encoded(texture(50, 41, 2).convert("CMYK"), "JPEG"), None),
        "sixteen.png": (encoded(Image.fromarray(sixteen), "PNG"), None),
        "palette.png": (encoded(palette, "PNG", transparency=3), None),
        "moving.gif": (encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), None),
        "turned.jpg": (encoded(texture(64, 33, 3), "JPEG", exif=exif), None),
        "png-as.jpg": (encoded(texture(37, 29, 4), "PNG"), None),
        "text-as.jpg": (b"this is no picture\n", "unknown_type"),
        "vector-as.png": (
            b"<svg xmlns='http://www.w3.org/2000/svg'><image href='http://127.0.0.1/'/></svg>",
            "unknown_type",
        ),
        "empty.jpg": (b"", "empty_file"),
        "dot.png": (encoded(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG"), None),
        "large.png": (encoded(Image.new("RGB", (6_000, 5_000), (90, 120, 30)), "PNG"), None),
    }


# ---- sounds


def tone(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    one = 0.4 * np.sin(2 * np.pi * 440 * t) + 0.1 * np.sin(2 * np.pi * 97 * t)
    return np.repeat(one[:, None], channels, axis=1)


def written(samples: np.ndarray, rate: int, subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype=subtype)
    return buffer.getvalue()


def header(promised: int) -> bytes:
    """A WAV header with no sample behind it; ``promised``: the bytes it speaks of."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
    data = bytearray(buffer.getvalue())
    data[4:8], data[40:44] = struct.pack("<I", 36 + promised), struct.pack("<I", promised)
    return bytes(data)


def sounds() -> dict[str, tuple[bytes, str | None]]:
    whole = written(tone(3.2, 16_000), 16_000)
    holes = tone(3.2, 16_000).astype(np.float32)
    holes[7_000:7_003] = np.nan
    return {
        "whole.wav": (whole, None),
        "half.wav": (whole[: len(whole) // 2], "truncated"),
        "zero.wav": (b"", "empty_file"),
        "header.wav": (header(0), "empty_audio"),
        "promise.wav": (header(32_000), "truncated"),
        "nan.wav": (written(holes, 16_000, "FLOAT"), "not_finite"),
        "8k.wav": (written(tone(3.1, 8_000), 8_000), None),
        "192k.wav": (written(tone(3.0, 192_000), 192_000), None),
        "24bit.wav": (written(tone(3.3, 44_100, 2), 44_100, "PCM_24"), None),
        "32channels.wav": (written(tone(0.5, 16_000, 32), 16_000), "too_many_channels"),
        "silent.wav": (written(np.zeros((48_000, 1)), 16_000), "silent"),
        "text-as.mp3": (b"#EXTM3U\nfile:///etc/passwd\n", "unknown_type"),
    }


# ---- clips


def clip(frames: int = 30, size: tuple[int, int] = (96, 64), sound: bool = False) -> bytes:
    """An MP4 whose index (moov) comes last."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        video = container.add_stream("libx264", rate=15)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        video.options = {"crf": "20", "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}
        still = np.asarray(texture(size[0] * 2, size[1]))
        for n in range(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(still[:, n : n + size[0]]), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return out.getvalue()


def sound_only() -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        samples = tone(1.0, 16_000)[:, 0].astype(np.float32)
        for at in range(0, 15_000, 1024):
            frame = av.AudioFrame.from_ndarray(samples[None, at : at + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16_000, at, Fraction(1, 16_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


def ten_hours(data: bytes) -> bytes:
    """The same clip, whose movie and media headers (version 0; ISO 14496-12, 8.2.2 and 8.4.2) claim ten hours."""
    out = bytearray(data)
    for name in (b"mvhd", b"mdhd"):
        at = out.index(name) + 4
        (scale,) = struct.unpack_from(">I", out, at + 12)
        struct.pack_into(">I", out, at + 16, min(36_000 * scale, 2**32 - 2))
    at = out.index(b"tkhd") + 4
    struct.pack_into(">I", out, at + 20, 36_000 * 1000)
    return bytes(out)


def no_time(data: bytes) -> bytes:
    """The same clip, whose frames all last 0 (stts; ISO 14496-12, 8.6.1.2): 0 frames a second."""
    out = bytearray(data)
    at = out.index(b"stts") + 8
    (entries,) = struct.unpack_from(">I", out, at)
    for n in range(entries):
        struct.pack_into(">I", out, at + 8 + 8 * n, 0)
    return bytes(out)


def playlist(port: int) -> bytes:
    return (
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n"
        f"#EXTINF:10.0,\nhttp://127.0.0.1:{port}/segment.ts\n#EXT-X-ENDLIST\n"
    ).encode()


def clips(port: int) -> dict[str, tuple[bytes, str | None]]:
    whole = clip()
    assert whole.index(b"moov") > whole.index(b"mdat")
    return {
        "whole.mp4": (whole, None),
        "90.mp4": (whole[: len(whole) * 9 // 10], "truncated"),
        "50.mp4": (whole[: len(whole) // 2], "truncated"),
        "1.mp4": (whole[: max(len(whole) // 100, 33)], "truncated"),
        "sound.mp4": (sound_only(), "no_video_stream"),
        "tenhours.mp4": (ten_hours(whole), None),
        "notime.mp4": (no_time(whole), None),
        "playlist.mp4": (playlist(port), "unknown_type"),
        "concat.mp4": (f"ffconcat version 1.0\nfile http://127.0.0.1:{port}/a.mp4\n".encode(), "unknown_type"),
        "zero.mp4": (b"", "empty_file"),
    }


def clean() -> list[Broken]:
    """As many whole files of ordinary size, for comparison."""
    out = []
    for one in files():
        if one.kind == "image":
            data = encoded(texture(230, 170, len(out)), "JPEG", quality=90)
        elif one.kind == "audio":
            data = written(tone(3.2, 16_000) * (0.5 + len(out) / 100), 16_000)
        else:
            data = clip(28 + len(out) % 7)
        out.append(Broken(one.kind, one.name, data, None))
    return out
