"""What no ranker can learn from or look at is refused by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fusionrec.types import ItemSet
from tests.contracts import test_ranker as contract
from tests.contracts import world as w

LEARNT = sorted(set(contract.SPECS) - set(contract.TOYS))


def spoiled(items: ItemSet, bad: float) -> tuple[ItemSet, str]:
    """The catalogue with one bad number, and what is told of it."""
    name = items.modalities[0]
    x, row = items.features[name].copy(), int(np.flatnonzero(items.present[name])[2])
    x[row, 1] = bad
    return replace(items, features={**items.features, name: x}), rf"modality '{name}'.*{items.ids[row]}"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", [kind for kind in LEARNT if contract.SPECS[kind].reads_content])
def test_vectors_that_are_no_numbers(kind: str, bad: float) -> None:
    data = w.world()
    items, told = spoiled(data.items, bad)
    shown, later = contract.impressions(data, 200), contract.impressions(data, 50, 3)
    ranker = contract.SPECS[kind].build()
    with pytest.raises(ValueError, match=told):
        ranker.fit(shown, later, replace(contract.known(data), items=items))
    if bad != bad:  # a catalogue that came later: once is enough
        ranker.fit(shown, later, contract.known(data))
        with pytest.raises(ValueError, match=told):
            ranker.attach(items)


@pytest.mark.parametrize("kind", LEARNT)
def test_a_label_without_end(kind: str) -> None:
    data = w.world()
    shown = contract.impressions(data, 200)
    shown.labels["rating"][np.flatnonzero(~np.isnan(shown.labels["rating"]))[0]] = np.inf
    with pytest.raises(ValueError, match="1 labels of rating are infinite"):
        contract.SPECS[kind].build().fit(shown, contract.impressions(data, 50, 3), contract.known(data))


def test_a_catalogue_that_a_reranker_cannot_compare() -> None:
    from fusionrec.ranking.rerankers.mmr import MMR

    items, told = spoiled(w.world().items, np.nan)
    with pytest.raises(ValueError, match=told):
        MMR().build().attach(items)


def test_vectors_of_another_width_name_both_widths() -> None:
    data = w.world()
    name = data.items.modalities[0]
    narrow = replace(data.items, features={**data.items.features, name: data.items.features[name][:, :-1].copy()})
    width = data.items.features[name].shape[1]
    with pytest.raises(
        ValueError, match=rf"modality '{name}': found vectors of {width - 1} numbers.*fitted on {width}"
    ):
        contract.fitted("logistic").attach(narrow)
    contract.fitted("logistic").attach(data.items)
