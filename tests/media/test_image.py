"""Every kind of broken picture is refused with its code, every odd but sound one becomes RGB."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fusionrec.media.base import MediaError
from fusionrec.media.image import SIDE, decode, sniff, square


def encoded(picture: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")


def code_of(data: bytes) -> str:
    with pytest.raises(MediaError) as caught:
        decode(data)
    return caught.value.code


RED = Image.new("RGB", (31, 17), (200, 30, 40))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_every_allowed_type_is_told_by_its_bytes_and_decoded(form):
    data = encoded(RED, form, **({"quality": 95} if form in ("JPEG", "WEBP") else {}))
    picture = decode(data)
    assert (sniff(data), picture.mode, picture.size) == (form, "RGB", (31, 17))
    assert np.abs(np.asarray(picture).astype(int) - (200, 30, 40)).max() <= 6


@pytest.mark.parametrize(
    "data, code",
    [
        (b"", "unknown_type"),
        (b"GIF", "unknown_type"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unknown_type"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "unknown_type"),
        (encoded(RED, "TIFF"), "unknown_type"),
        (encoded(Image.effect_noise((99, 99), 90), "JPEG")[:-900], "truncated"),
        (encoded(Image.effect_noise((99, 99), 90), "PNG")[:-900], "truncated"),
        (b"\xff\xd8\xff\xe0junk", "truncated"),  # a segment that claims 27,253 bytes
        (b"\xff\xd8\xffjunk", "undecodable"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "undecodable"),
        (b"RIFF\x10\0\0\0WEBPVP8 \0\0\0\0", "undecodable"),
        (png_header(20_000, 10_000), "too_many_pixels"),  # 200 million pixels in 80 bytes
        (png_header(10_000, 9_500), "too_many_pixels"),  # where Pillow itself would only warn
        (png_header(8_000, 5_001), "too_many_pixels"),  # where Pillow would say nothing
        (png_header(2**31 - 1, 2**31 - 1), "too_many_pixels"),
    ],
)
def test_what_is_no_sound_picture_is_refused_with_its_code(data, code):
    assert code_of(data) == code


def test_a_bomb_is_refused_from_its_header_without_allocating():
    tracemalloc.start()
    code_of(png_header(20_000, 10_000))
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_the_file_name_is_never_asked_and_a_png_that_claims_to_be_jpeg_still_decodes(tmp_path):
    (tmp_path / "cat.jpg").write_bytes(encoded(RED, "PNG"))
    assert decode((tmp_path / "cat.jpg").read_bytes()).getpixel((0, 0)) == (200, 30, 40)


def test_cmyk_becomes_rgb():
    data = encoded(Image.new("CMYK", (9, 5), (0, 255, 255, 0)), "JPEG", quality=95)
    red, green, blue = decode(data).getpixel((4, 2))
    assert red > 230 and green < 25 and blue < 25


def test_sixteen_bit_grey_keeps_its_brightness():
    values = np.array([[0, 32768, 65535]], np.uint16)
    picture = decode(encoded(Image.fromarray(values), "PNG"))
    assert [picture.getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]


def test_transparency_lies_on_white():
    half = encoded(Image.new("RGBA", (4, 3), (255, 0, 0, 0)), "PNG")
    assert decode(half).getpixel((1, 1)) == (255, 255, 255)
    palette = Image.new("P", (4, 3), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.putpixel((0, 0), 0)
    picture = decode(encoded(palette, "PNG", transparency=0))
    assert picture.getpixel((0, 0)) == (255, 255, 255) and picture.getpixel((1, 1)) == (10, 20, 30)
    assert decode(encoded(Image.new("LA", (4, 3), (0, 0)), "PNG")).getpixel((2, 2)) == (255, 255, 255)


def test_exif_orientation_is_applied_and_broken_exif_ignored():
    picture = Image.new("RGB", (8, 4), (255, 255, 255))
    picture.paste((255, 0, 0), (0, 0, 4, 4))  # the left half is red
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: shown upright, left becomes top
    upright = decode(encoded(picture, "PNG", exif=exif))
    assert upright.size == (4, 8)
    assert upright.getpixel((1, 1)) == (255, 0, 0) and upright.getpixel((1, 6)) == (255, 255, 255)
    assert decode(encoded(picture, "PNG", exif=b"Exif\0\0MM\0*junk")).size == (8, 4)


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (6, 5), c) for c in ((255, 0, 0), (0, 255, 0))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data).getpixel((3, 3)) == (255, 0, 0)


def test_one_pixel_and_long_strips_give_a_square_without_a_huge_picture_between():
    assert square(decode(encoded(Image.new("RGB", (1, 1), (7, 8, 9)), "PNG")), 224)[100, 100].tolist() == [7, 8, 9]
    strip = decode(encoded(Image.new("RGB", (40_000, 1), (7, 8, 9)), "PNG"))
    tracemalloc.start()
    assert square(strip, 224).shape == (224, 224, 3)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_a_large_jpeg_is_scaled_down_while_decoding_but_never_below_the_side():
    large = decode(encoded(Image.new("RGB", (2400, 1600), (9, 99, 199)), "JPEG"))
    assert SIDE <= min(large.size) < 1600
    assert np.abs(np.asarray(large).astype(int) - (9, 99, 199)).max() <= 4


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP"]), st.integers(0, 10**6), st.integers(0, 255), st.floats(0, 1)
)
def test_damaged_bytes_end_in_a_picture_or_a_media_error(form, place, byte, kept):
    data = bytearray(encoded(Image.linear_gradient("L").resize((40, 30)).convert("RGB"), form))
    data[place % len(data)] = byte
    with suppress(MediaError):  # any other exception fails the test
        assert decode(bytes(data[: max(1, int(len(data) * kept))])).mode == "RGB"
