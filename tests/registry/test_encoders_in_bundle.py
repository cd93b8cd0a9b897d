"""A bundle carries the weights of encoders that were learnt here, and a new item is encoded by them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fusionrec.encoders.learnt import WEIGHTS
from fusionrec.encoders.lstm_text import LSTMText
from fusionrec.errors import IntegrityError
from fusionrec.recommenders.ease import EASE
from fusionrec.registry.bundle import bundle_digest, load_bundle, read_bundle_json, save_bundle, shared
from fusionrec.registry.model import arrays_to_bytes, save_model
from fusionrec.registry.sealed import seal
from tests.registry.conftest import World

SPEC = LSTMText(buckets=50, dim=5)


@pytest.fixture
def folder(world: World, tmp_path: Path) -> Path:
    state = {name: value.numpy() for name, value in SPEC.start().module.state_dict().items()}
    learnt = tmp_path / "encoders" / "text"
    seal(learnt, {WEIGHTS: arrays_to_bytes(state)}, {"encoder": SPEC.model_dump(mode="json")})
    retriever = EASE().build()
    retriever.fit(world.train, world.train.select(np.zeros(len(world.train), bool)), world.items)
    print_ = SPEC.bound(learnt).fingerprint()
    save_model(
        tmp_path / "model", retriever, spec={"retriever": EASE().model_dump(mode="json")}, label="ease",
        modalities={"text": {"encoder": SPEC.model_dump(mode="json"), "fingerprint": print_}}, seed=0, train_end=None,
        curve=[],
    )  # fmt: skip
    for name, encoders in (("bundle", {"text": learnt}), ("without", {})):
        save_bundle(
            tmp_path / name, tmp_path / "model", table=world.table, items=world.items, fingerprints={"text": print_},
            histories=world.trained, trained=world.trained, users=world.users, metrics={}, encoders=encoders,
        )  # fmt: skip
    return tmp_path / "bundle"


def test_a_new_item_is_encoded_as_the_catalogue_was(folder):
    bundle = load_bundle(folder)
    encoder = bundle.encoder("text")
    assert encoder.fingerprint() == bundle.catalogue.fingerprints["text"]
    assert encoder.build().encode(["something new"]).shape == (1, 5)


def test_the_digest_joins_the_encoders(folder):
    about, without = read_bundle_json(folder), read_bundle_json(folder.with_name("without"))
    assert shared(about) == ("model", "catalogue", "encoders/text") and shared(without) == ("model", "catalogue")
    assert about["bundle"] == bundle_digest(about) != without["bundle"]
    assert without["bundle"] == bundle_digest({k: v for k, v in about.items() if k != "encoders/text"})


def test_a_public_copy_without_users_has_them(folder, tmp_path):
    public = tmp_path / "public"
    for part in shared(read_bundle_json(folder)):
        shutil.copytree(folder / part, public / part)
    for file in ("bundle.json", "train_pairs.safetensors"):
        shutil.copy(folder / file, public / file)
    assert load_bundle(public, users=False).encoder("text").build().dim == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "encoders/text" / WEIGHTS).write_bytes(b"x"), r"text/weights\.safetensors does not match"),
        (lambda f: shutil.rmtree(f / "encoders"), "encoders/text is missing"),
        (lambda f: shutil.copytree(f / "encoders/text", f / "encoders/other"), "encoders/other does not belong"),
    ],
)
def test_altered_encoders_are_named_and_not_loaded(folder, change, message):
    change(folder)
    with pytest.raises(IntegrityError, match=message):
        load_bundle(folder)
