"""Safe decoding of a picture: type by magic bytes, caps read from the header before any pixel is decoded."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image, UnidentifiedImageError

from fusionrec.media.base import MediaError

MAX_BYTES = 32 * 2**20
MAX_PIXELS = 40_000_000  # Pillow itself only warns from 89.5 million pixels on, and refuses from 179 million
SIDE = 448
RECIPE = f"rgb-on-white,exif,draft>={SIDE},reduce>={SIDE},v2"
"""Names everything in this file that changes pixels; part of the fingerprint of every picture encoder."""

_header = threading.Lock()  # warnings filters are global, and pictures are decoded in threads

_ROTATE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def sniff(data: bytes) -> str | None:
    """JPEG, PNG, WEBP, GIF or BMP by the first bytes (never by the file's name); None for anything else."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"BM") and len(data) >= 26 and data[6:10] == b"\0\0\0\0":
        return "BMP"
    return None


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The first frame as an upright RGB picture, transparency on white.

    A large picture comes back scaled down by a whole number, a JPEG by its own transform, never below ``SIDE`` pixels
    on the short side. Raises MediaError: ``unknown_type``, ``too_many_pixels``, ``truncated``, ``undecodable``,
    ``decoder_memory``.
    """
    kind = sniff(data)
    if kind is None:
        raise MediaError("unknown_type", f"first bytes {data[:4].hex()}; expected JPEG, PNG, WEBP, GIF or BMP")
    picture = _guard(lambda: _open(data, kind))
    with picture:
        width, height = picture.size
        if width * height > max_pixels or min(width, height) < 1:
            raise MediaError("too_many_pixels", f"found {width} x {height}, expected at most {max_pixels} pixels")
        return _guard(lambda: _rgb(picture))


def describe(data: bytes, picture: Image.Image) -> str:
    """ "jpeg 640x480": the type and the stored size of a picture that decodes."""
    kind = sniff(data)
    with _open(data, str(kind)) as stored:
        return f"{str(kind).lower()} {stored.width}x{stored.height}"


def prepare() -> None:
    """Load the readers of the allowed types, and what they load only when a file asks for it (a JPEG may be an MPO,
    EXIF is a TIFF, a GIF copies palettes): by name, and by decoding a small picture of each."""
    import copy  # noqa: F401

    from PIL import GifImagePlugin, ImageCms, MpoImagePlugin, TiffImagePlugin, WebPImagePlugin  # noqa: F401

    Image.preinit()
    exif = Image.Exif()
    exif[0x0112] = 6
    for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
        small = io.BytesIO()
        picture = Image.new("P" if form in ("PNG", "GIF", "BMP") else "RGB", (3, 2))
        picture.save(small, form, **({"exif": exif} if form in ("JPEG", "PNG", "WEBP") else {}))
        decode(small.getvalue())


def pack(picture: Image.Image) -> tuple[dict[str, int], list[np.ndarray]]:
    """The picture as one (H, W, 3) uint8 array."""
    return {}, [np.asarray(picture)]


def unpack(meta: dict[str, int], arrays: list[np.ndarray]) -> Image.Image:
    """:func:`pack` undone. Raises ValueError for anything but one (H, W, 3) uint8 array."""
    (pixels,) = arrays
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"found {pixels.dtype} {pixels.shape}, expected uint8 (H, W, 3)")
    height, width, _ = pixels.shape
    return Image.frombuffer("RGB", (width, height), pixels, "raw", "RGB", 0, 1)


def _open(data: bytes, kind: str) -> Image.Image:
    """Reads the header only."""
    with _header, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)  # broken EXIF blocks
        return Image.open(io.BytesIO(data), formats=[kind])


def _guard(step: Callable[[], Image.Image]) -> Image.Image:
    """A decoder's many kinds of exception become one, with a code."""
    try:
        return step()
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise MediaError("too_many_pixels", f"{error}; expected at most {MAX_PIXELS} pixels") from None
    except UnidentifiedImageError:  # its message holds a memory address, which would make reports differ
        raise MediaError("undecodable", "the header is broken") from None
    except MemoryError:
        raise MediaError("decoder_memory", "the picture does not fit into memory") from None
    except Exception as error:
        text = str(error)
        cut = isinstance(error, EOFError) or "truncated" in text.lower() or "not enough" in text.lower()
        raise MediaError("truncated" if cut else "undecodable", text[:120] or type(error).__name__) from None


def _rgb(picture: Image.Image) -> Image.Image:
    turn = _ROTATE.get(_orientation(picture))
    if picture.format in ("JPEG", "MPO"):
        picture.draft(None, (SIDE, SIDE))
    picture.load()
    if picture.mode.startswith("I"):  # 16-bit grey: keep the high byte; Pillow's own conversion clips to white
        values = np.asarray(picture)
        values = values if values.dtype == np.uint16 else np.clip(values, 0, 65535)
        flat = Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    elif "transparency" in picture.info or picture.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        layer = picture.convert("RGBA")
        flat = Image.new("RGB", layer.size, (255, 255, 255))
        flat.paste(layer, mask=layer.getchannel("A"))
    else:
        flat = picture.convert("RGB")
    if min(flat.size) >= 2 * SIDE:
        flat = flat.reduce(min(flat.size) // SIDE)
    return flat.transpose(turn) if turn is not None else flat


def _orientation(picture: Image.Image) -> int:
    try:
        with _header, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return int(picture.getexif().get(0x0112, 1))
    except Exception:  # a broken EXIF block says nothing about the pixels: the picture is used as it lies
        return 1


def square(picture: Image.Image, side: int) -> np.ndarray:
    """The centre square scaled to ``side``: (side, side, 3) uint8.

    The square is cut before scaling, so that a 1 x 40,000 strip cannot grow into a huge intermediate picture.
    """
    width, height = picture.size
    edge = min(width, height)
    left, top = (width - edge) / 2, (height - edge) / 2
    box = (left, top, left + edge, top + edge)
    return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC, box=box))
