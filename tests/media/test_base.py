"""Media paths stay below their folder, and files are what ingest saw."""

from __future__ import annotations

import hashlib
import os

import pytest

from fusionrec.media.base import MediaError, read, resolve


def code(call, *args, **kwargs):
    with pytest.raises(MediaError) as caught:
        call(*args, **kwargs)
    return caught.value.code


@pytest.fixture
def root(tmp_path):
    (tmp_path / "media" / "deep").mkdir(parents=True)
    (tmp_path / "media" / "deep" / "画.jpg").write_bytes(b"abc")
    (tmp_path / "secret").write_bytes(b"secret")
    return tmp_path / "media"


@pytest.mark.parametrize(
    "relative",
    ["", "../secret", "deep/../../secret", "/etc/passwd", "~/x", "http://127.0.0.1/x.jpg", "file:///etc/passwd",
     "deep\\画.jpg", "a\0b", "concat:a|b/../../secret"],
)  # fmt: skip
def test_paths_that_could_leave_the_folder_are_refused(root, relative):
    assert code(resolve, root, relative) in {"unsafe_path"}


def test_links_out_and_loops_are_refused_and_links_inside_work(root):
    (root / "out").symlink_to(root.parent / "secret")
    (root / "up").symlink_to(root.parent)
    (root / "loop").symlink_to(root / "loop")
    (root / "in").symlink_to(root / "deep")
    assert {code(resolve, root, name) for name in ("out", "up/secret", "loop")} == {"unsafe_path"}
    assert read(root, "in/画.jpg", 3) == b"abc"


def test_size_presence_and_content_are_checked(root):
    good = hashlib.sha256(b"abc").hexdigest()
    assert read(root, "deep/画.jpg", 3, good) == b"abc"
    assert code(read, root, "deep/画.jpg", 2) == "too_many_bytes"
    assert code(read, root, "deep/none.jpg", 9) == "missing_file"
    assert code(read, root, "deep", 9) == "not_a_file"
    (root / "zero.jpg").touch()
    assert code(read, root, "zero.jpg", 9) == "empty_file"
    (root / "deep" / "画.jpg").write_bytes(b"abd")
    assert code(read, root, "deep/画.jpg", 3, good) == "changed_on_disk"


def test_a_pipe_is_not_opened(root):
    os.mkfifo(root / "pipe.jpg")
    assert code(read, root, "pipe.jpg", 9) == "not_a_file"
