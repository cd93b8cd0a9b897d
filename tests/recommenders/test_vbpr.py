"""VBPR: what an item's vector is made of, with and without features and history."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from fusionrec.recommenders.vbpr import VBPR, VBPRRetriever, network
from tests.contracts import world as w

DATA = w.world()


def fitted() -> VBPRRetriever:
    model = VBPR.model_validate({"dim": 5, "training": {"epochs": 3, "batch": 64, "lr": 0.01}}).build()
    model.fit(DATA.train, DATA.valid, DATA.items)
    return model


def test_an_item_is_its_id_vector_beside_the_mapped_features() -> None:
    model = fitted()
    both = int(np.flatnonzero(DATA.items.mask()[: w.ITEMS - w.COLD].all(1))[0])
    mapped = sum(DATA.items.features[m][both] @ model.maps[m] for m in ("image", "text")) + model.offset
    np.testing.assert_allclose(model.item_vectors[both], np.concatenate([model.item[both], mapped]), rtol=1e-5)


def test_a_missing_modality_is_made_up_for_by_the_other() -> None:
    model = fitted()
    present = DATA.items.present
    only = int(np.flatnonzero((present["image"] & ~present["text"])[: w.ITEMS - w.COLD])[0])
    content = model.item_vectors[only, 5:] - model.offset
    np.testing.assert_allclose(content, 2 * DATA.items.features["image"][only] @ model.maps["image"], rtol=1e-4)


def test_an_item_nobody_touched_has_the_mean_id_and_its_features() -> None:
    model = fitted()
    cold = w.ITEMS - 1
    assert DATA.items.mask()[cold].all()
    np.testing.assert_allclose(model.item_vectors[cold, :5], model.item[model.touched].mean(0), rtol=1e-4, atol=1e-6)
    changed = {m: x.copy() for m, x in DATA.items.features.items()}
    changed["text"][cold] *= -3
    before = model.score(w.requests(DATA.train, [4]))
    model.attach(replace(DATA.items, features=changed))
    after = model.score(w.requests(DATA.train, [4]))
    assert after[0, cold] != before[0, cold] and after[0, 1] == before[0, 1]


def test_serving_gives_what_training_saw() -> None:
    torch.manual_seed(0)
    model = VBPR(dim=5).build()
    model.touched = np.ones(w.ITEMS, bool)
    net = network(model.spec, DATA.train.matrix(), DATA.items)
    model.fit_ids = DATA.items.ids
    model._take(net, np.ones(w.USERS, bool))
    model.attach(DATA.items)
    here = DATA.items.mask().any(1)
    np.testing.assert_allclose(model.item_vectors[here], net.vectors()[1].detach().numpy()[here], rtol=1e-4, atol=1e-6)
