"""Weights in the formats of other frameworks, read without those frameworks: arrays only, nothing is executed.

Both readers are for files whose sha256 was just compared (weights.py); they check what they walk over all the same.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fusionrec.errors import IntegrityError

_TABLE_MAGIC = 0xDB4775248B80FB57
_TF_TYPES: dict[int, Any] = {1: np.float32, 3: np.int32, 9: np.int64}
_CT2_TYPES: dict[int, Any] = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


def tensor_bundle(index: Path, data: Path) -> dict[str, np.ndarray]:
    """A TensorFlow V2 checkpoint of one shard: name -> array.

    ``index`` is a LevelDB table (github.com/google/leveldb, doc/table_format.md) of BundleEntryProto messages
    (tensorflow/core/protobuf/tensor_bundle.proto), which point into ``data``. Arrays of other types than float32,
    int32 and int64 are left out. Raises IntegrityError where the files are not of this form.
    """
    table, raw = index.read_bytes(), data.read_bytes()
    if len(table) < 48 or struct.unpack("<Q", table[-8:])[0] != _TABLE_MAGIC:
        raise IntegrityError(f"{index.name} is no index of a TensorFlow checkpoint")
    try:
        return dict(_bundle(table, raw))
    except (IndexError, KeyError, ValueError, TypeError, struct.error) as error:
        raise IntegrityError(f"{index.name}: not a checkpoint of one uncompressed shard ({error})") from None


def _bundle(table: bytes, raw: bytes) -> Iterator[tuple[str, np.ndarray]]:
    footer, at = table[-48:], 0
    for _ in range(2):  # the handle of the meta index: offset and size
        _, at = _varint(footer, at)
    offset, at = _varint(footer, at)
    size, at = _varint(footer, at)
    for _, handle in _block(table, offset, size):
        start, at = _varint(handle, 0)
        length, _ = _varint(handle, at)
        for key, value in _block(table, start, length):
            entry = dict(_message(value))
            if not key or entry[1] not in _TF_TYPES:  # the empty key is the header of the bundle
                continue
            shape = [dict(_message(d)).get(1, 0) for field, d in _message(entry.get(2, b"")) if field == 2]
            begin, width = entry.get(4, 0), entry[5]
            if begin + width > len(raw):
                raise ValueError(f"{key!r} lies outside the data")
            yield key.decode(), np.frombuffer(raw[begin : begin + width], _TF_TYPES[entry[1]]).reshape(shape)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, position behind it) of a base-128 integer."""
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def _message(data: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, integer or bytes) of a protobuf message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == 0:
            value: Any
            value, at = _varint(data, at)
        else:
            width, at = _varint(data, at) if wire == 2 else ({1: 8, 5: 4}[wire], at)
            value, at = data[at : at + width], at + width
        yield tag >> 3, value


def _block(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of a block; keys share prefixes with the key before them."""
    if table[offset + size] != 0:
        raise ValueError("a compressed block")
    block = table[offset : offset + size]
    end = size - 4 * (struct.unpack("<I", block[-4:])[0] + 1)  # restart points and their number
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        width, at = _varint(block, at)
        key = key[:shared] + block[at : at + fresh]
        yield key, block[at + fresh : at + fresh + width]
        at += fresh + width


def ctranslate2(path: Path, prefix: str) -> dict[str, np.ndarray]:
    """The arrays of a CTranslate2 model.bin (binary version 6) whose name starts with ``prefix``; name -> array.

    Layout: version, specification, its revision, then per variable name, shape, type and bytes
    (github.com/OpenNMT/CTranslate2, python/ctranslate2/specs/model_spec.py). Raises IntegrityError.
    """
    data = path.read_bytes()
    at, out = 0, {}

    def number(form: str) -> int:
        nonlocal at
        value: int = struct.unpack_from("<" + form, data, at)[0]
        at += struct.calcsize("<" + form)
        return value

    def name() -> str:
        nonlocal at
        length = number("H")
        at += length
        return data[at - length : at - 1].decode()  # the length counts the closing NUL

    try:
        version = number("I")
        if version != 6:
            raise ValueError(f"version {version}, expected 6")
        name(), number("I")
        for _ in range(number("I")):
            key = name()
            shape = [number("I") for _ in range(number("B"))]
            dtype, width = np.dtype(_CT2_TYPES[number("B")]), number("I")
            if key.startswith(prefix):
                out[key] = np.frombuffer(data, dtype, width // dtype.itemsize, at).reshape(shape)
            at += width
    except (IndexError, KeyError, ValueError, struct.error) as error:
        raise IntegrityError(f"{path.name} is no CTranslate2 model that this reader knows ({error})") from None
    return out
