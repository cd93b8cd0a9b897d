"""Readers of foreign weight files: known answers on small files made here, and refusal of what they do not know."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from fusionrec.encoders.checkpoints import ctranslate2, tensor_bundle
from fusionrec.errors import IntegrityError


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def block(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """A LevelDB block with shared key prefixes, one restart point, uncompressed, without a checksum to speak of."""
    body, last = b"", b""
    for key, value in pairs:
        shared = 0
        while shared < min(len(key), len(last)) and key[shared] == last[shared]:
            shared += 1
        body += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return body + struct.pack("<II", 0, 1)


def bundle(folder: Path, arrays: dict[str, np.ndarray]) -> tuple[Path, Path]:
    """A TensorFlow V2 checkpoint."""
    raw, entries = b"", [(b"", field(1, 1))]
    for name in sorted(arrays):
        a = arrays[name]
        number = {"float32": 1, "float64": 2, "int32": 3, "int64": 9}[a.dtype.name]
        shape = b"".join(field(2, field(1, n)) for n in a.shape)
        # a fixed32 checksum (wire type 5) closes an entry
        entry = field(1, number) + field(2, shape) + (field(4, len(raw)) if raw else b"") + field(5, a.nbytes)
        entries.append((name.encode(), entry + varint(6 << 3 | 5) + b"\1\2\3\4"))
        raw += a.tobytes()
    data = block(entries)
    index = block([(b"zz", varint(0) + varint(len(data)))])
    table = data + b"\0crcc" + index + b"\0crcc"
    footer = varint(0) + varint(0) + varint(len(data) + 5) + varint(len(index))
    paths = folder / "index", folder / "data"
    paths[0].write_bytes(table + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57))
    paths[1].write_bytes(raw)
    return paths


def test_a_checkpoint_comes_back_as_it_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "conv2d/bias": rng.normal(size=3).astype(np.float32),
        "conv2d/kernel": rng.normal(size=(7, 5, 1, 3)).astype(np.float32),
        "conv2d_1/kernel": rng.normal(size=(2, 11)).astype(np.float32),
        "global_step": np.array(129, np.int64),
        "other": np.array([1.5]),  # float64 is left out
    }
    found = tensor_bundle(*bundle(tmp_path, arrays))
    assert sorted(found) == ["conv2d/bias", "conv2d/kernel", "conv2d_1/kernel", "global_step"]
    for name, array in found.items():
        assert array.dtype == arrays[name].dtype
        np.testing.assert_array_equal(array, arrays[name])


@pytest.mark.parametrize("damage", ["magic", "short", "data", "compressed", "wire type"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, damage: str) -> None:
    index, data = bundle(tmp_path, {"a": np.ones(7, np.float32), "b": np.ones((5, 3), np.float32)})
    table = bytearray(index.read_bytes())
    if damage == "magic":
        table[-1] ^= 1
    elif damage == "short":
        table = table[:30]
    elif damage == "data":
        data.write_bytes(data.read_bytes()[:-4])
    elif damage == "compressed":
        table[table.index(b"\0crcc")] = 1
    else:
        table[table.index(b"\x35\1\2\3\4")] = 6 << 3 | 7  # a wire type that does not exist
    index.write_bytes(table)
    with pytest.raises(IntegrityError):
        tensor_bundle(index, data)


def model(path: Path, arrays: dict[str, np.ndarray], version: int = 6) -> Path:
    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    out = struct.pack("<I", version) + text("WhisperSpec") + struct.pack("<II", 3, len(arrays))
    for name, a in arrays.items():
        number = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}[a.dtype.name]
        out += text(name) + struct.pack(f"<B{a.ndim}I", a.ndim, *a.shape) + struct.pack("<BI", number, a.nbytes)
        out += a.tobytes()
    path.write_bytes(out + struct.pack("<I", 0))
    return path


def test_a_ctranslate2_model_comes_back_as_it_was_written(tmp_path: Path) -> None:
    arrays = {
        "decoder/x": np.ones((2, 3), np.float32),
        "encoder/conv1/weight": np.random.default_rng(0).normal(size=(5, 3, 7)).astype(np.float16),
        "encoder/num_heads": np.array(6, np.int16),
    }
    path = model(tmp_path / "model.bin", arrays)
    found = ctranslate2(path, "encoder/")
    assert sorted(found) == ["encoder/conv1/weight", "encoder/num_heads"]
    for name, array in found.items():
        assert array.dtype == arrays[name].dtype
        np.testing.assert_array_equal(array, arrays[name])
    for wrong in (path.read_bytes()[:40], b"", path.read_bytes()[:-30]):
        (tmp_path / "wrong").write_bytes(wrong)
        with pytest.raises(IntegrityError):
            ctranslate2(tmp_path / "wrong", "")
    with pytest.raises(IntegrityError, match="version 5"):
        ctranslate2(model(tmp_path / "old", arrays, version=5), "")
