"""Pictures: which files of an item are read, and what happens when one changed."""

from __future__ import annotations

import hashlib

import polars as pl
import pytest
from PIL import Image as Pillow

from fusionrec.media.base import MediaError
from fusionrec.modalities.image import Image


@pytest.fixture
def catalogue(tmp_path):
    """(items, media root): a has two pictures and a missing one between, b one, c none."""
    shas = {}
    for name, colour in (("1", "red"), ("2", "blue"), ("3", "green")):
        Pillow.new("RGB", (5, 3), colour).save(tmp_path / f"{name}.png")
        shas[name] = hashlib.sha256((tmp_path / f"{name}.png").read_bytes()).hexdigest()
    items = pl.DataFrame(
        {
            "item_id": ["a", "b", "c"],
            "image_paths": [["1.png", "gone.png", "2.png"], ["3.png"], None],
            "image_sha256": [[shas["1"], None, shas["2"]], [shas["3"]], None],
        }
    )
    return items, tmp_path, shas


def test_the_first_picture_that_exists_is_the_item(catalogue):
    items, root, shas = catalogue
    modality = Image().build()
    rows = modality.rows(items, root)
    assert rows.present.tolist() == [True, True, False] and list(rows.content) == [shas["1"], shas["3"], ""]
    (picture,) = modality.load(1)
    assert picture.getpixel((0, 0)) == (0, 128, 0)


def test_several_pictures_make_one_content_in_their_order(catalogue):
    items, root, shas = catalogue
    modality = Image(first=3).build()
    rows = modality.rows(items, root)
    assert rows.content[0] == hashlib.sha256(f"{shas['1']}\n{shas['2']}".encode()).hexdigest()
    assert rows.content[1] == shas["3"] and len(modality.load(0)) == 2


def test_a_picture_that_changed_since_ingest_is_not_used(catalogue):
    items, root, _ = catalogue
    modality = Image().build()
    modality.rows(items, root)
    Pillow.new("RGB", (5, 3), "black").save(root / "3.png")
    with pytest.raises(MediaError) as caught:
        modality.load(1)
    assert caught.value.code == "changed_on_disk"


def test_a_catalogue_without_picture_columns_has_none(catalogue):
    items, root, _ = catalogue
    assert not Image().build().rows(items.select("item_id"), root).present.any()
