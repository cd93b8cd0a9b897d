"""A fit that was done is not done again: same scores, and everything that decides about it tells fits apart."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionrec.recommenders.base import EnoughTime, Retriever, fitted_by
from fusionrec.studies import contestants, fits, protocol, unit
from fusionrec.studies.fits import Fits
from tests.studies import folders

BPR = {"kind": "bpr", "dim": 4, "training": {"epochs": 6, "patience": 0}}
BLEND = {"kind": "blend", "parts": [{"kind": "item_knn"}, BPR]}


@pytest.fixture(autouse=True)
def everything_is_worth_keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fits, "WORTH", 0.0)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> protocol.Bench:
    return protocol.load(folders.write(tmp_path_factory.mktemp("fits") / "planted"))


def fitted(
    bench: protocol.Bench,
    section: dict[str, Any],
    kept: Fits | None,
    seed: int = 3,
    known: Any = None,
    watch: Any = None,
) -> tuple[Retriever, list[tuple[int, dict[str, float]]]]:
    model, curve = contestants.parse("m", section).spec.build(), []
    known = known or bench.known

    def told(epoch: int, values: Any) -> None:
        curve.append((epoch, dict(values)))
        if watch is not None:
            watch(epoch)

    if kept is None:
        model.fit(known.train, known.valid, known.items, seed=seed, watch=told)
    else:
        with fitted_by(kept.around):
            model.fit(known.train, known.valid, known.items, seed=seed, watch=told)
    return model, curve


def keeper(folder: Path, minutes: float = 5.0, code: str = "c", **facts: Any) -> Fits:
    return Fits(folder, lambda sections: code, minutes, facts)


def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds that are really fitted from now on."""
    from fusionrec.recommenders import base

    really, asked = base._really, []

    def count(model: Retriever, *rest: Any) -> None:
        asked.append(model.spec.kind)  # type: ignore[attr-defined]
        really(model, *rest)

    monkeypatch.setattr(base, "_really", count)
    return asked


def test_a_part_of_a_blend_that_was_fitted_before_is_restored(
    tmp_path: Path, bench: protocol.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, curve = fitted(bench, BLEND, None)
    asked = trained(monkeypatch)
    first = keeper(tmp_path)
    fitted(bench, BPR, first)
    assert asked == ["bpr"] and first.seconds == 0
    second = keeper(tmp_path)
    blend, again = fitted(bench, BLEND, second)
    assert asked == ["bpr", "blend", "item_knn"], "the blend and its other part"
    assert second.seconds > 0 and not second.capped
    mine, theirs = plain.arrays(), blend.arrays()  # the weights among them, which follow from the parts' scores
    assert mine.keys() == theirs.keys() and again == curve
    for name, array in mine.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)
    fitted(bench, BLEND, keeper(tmp_path))
    assert asked == ["bpr", "blend", "item_knn"], "now all of it is kept"


def test_whatever_decides_about_a_fit_tells_it_apart(
    tmp_path: Path, bench: protocol.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = trained(monkeypatch)
    fitted(bench, BPR, keeper(tmp_path))
    fitted(bench, BPR, keeper(tmp_path))
    assert len(asked) == 1
    known = bench.known
    fewer = replace(known, train=known.train.select(np.arange(len(known.train)) > 0))
    name = known.items.modalities[0]
    moved = {**known.items.features, name: known.items.features[name] + np.float32(1)}
    others = [
        (BPR | {"dim": 5}, keeper(tmp_path), {}),
        (BPR, keeper(tmp_path, code="d"), {}),
        (BPR, keeper(tmp_path, threads=2), {}),
        (BPR, keeper(tmp_path), {"seed": 4}),
        (BPR, keeper(tmp_path), {"known": fewer}),
        (BPR, keeper(tmp_path), {"known": replace(known, items=replace(known.items, features=moved))}),
    ]
    for at, (section, kept, more) in enumerate(others):
        fitted(bench, section, kept, **more)
        assert len(asked) == at + 2
    assert len(list(tmp_path.glob("*.fit"))) == len(others) + 1


def test_what_is_damaged_is_fitted_again(
    tmp_path: Path, bench: protocol.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = trained(monkeypatch)
    fitted(bench, BPR, keeper(tmp_path))
    (path,) = tmp_path.glob("*.fit")
    whole = path.read_bytes()
    for broken in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b"", b"{}\n" + whole, b"[1]\nx"):
        path.write_bytes(broken)
        before = len(asked)
        fitted(bench, BPR, keeper(tmp_path))
        assert len(asked) == before + 1 and path.read_bytes().partition(b"\n")[2] == whole.partition(b"\n")[2]


def test_a_fit_that_was_cut_short_says_so_and_gives_way_to_more_time(
    tmp_path: Path, bench: protocol.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def enough(epoch: int) -> None:
        if epoch == 1:
            raise EnoughTime

    asked = trained(monkeypatch)
    first = keeper(tmp_path)
    _, curve = fitted(bench, BPR, first, watch=enough)
    assert len(curve) == 2 and not first.capped, "the watch knows by itself"
    again = keeper(tmp_path)
    _, replayed = fitted(bench, BPR, again)
    assert asked == ["bpr"] and again.capped and replayed == curve
    outer = keeper(tmp_path)
    fitted(bench, BLEND, outer)
    assert outer.capped
    third = keeper(tmp_path)
    fitted(bench, BLEND, third)
    assert third.capped and asked == ["bpr", "blend", "item_knn"], "what holds a part that was cut is cut"
    _, more = fitted(bench, BPR, keeper(tmp_path, minutes=6.0))
    assert asked[-1] == "bpr" and len(more) == 6


def test_small_and_large_fits_are_not_kept_and_the_oldest_go(
    tmp_path: Path, bench: protocol.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits, "WORTH", 60.0)
    fitted(bench, BPR, keeper(tmp_path))
    monkeypatch.setattr(fits, "WORTH", 0.0)
    monkeypatch.setattr(fits, "MOST", 10)
    fitted(bench, BPR, keeper(tmp_path))
    assert not list(tmp_path.glob("*"))
    monkeypatch.setattr(fits, "MOST", 1 << 20)
    fitted(bench, BPR, keeper(tmp_path), seed=0)
    (oldest,) = tmp_path.glob("*.fit")
    monkeypatch.setattr(fits, "ROOM", int(2.5 * oldest.stat().st_size))
    for seed in (1, 2):
        time.sleep(0.01)
        fitted(bench, BPR, keeper(tmp_path), seed=seed)
    assert len(list(tmp_path.glob("*"))) == 2 and not oldest.exists()


def test_a_unit_tells_what_was_done_before(tmp_path: Path) -> None:
    folder = folders.write(tmp_path / "planted")
    job = {"folder": str(folder), "rules": {}, "seed": 2, "minutes": 5.0, "threads": 1, "fits": str(tmp_path / "fits")}

    def run(section: dict[str, Any], what: str, name: str) -> dict[str, Any]:
        model = contestants.parse(name, section).sections()
        return unit.run({**job, "model": model, "what": what, "checkpoints": str(tmp_path / name)})

    trial = run(BPR, "valid", "trial")
    chosen = run(BPR, "test", "chosen")
    assert "test" not in trial and chosen["valid"] == trial["valid"] and chosen["curve"] == trial["curve"]
    assert trial["seconds"]["of it done before"] == 0 < chosen["seconds"]["of it done before"]
    assert chosen["seconds"]["fit"] >= chosen["seconds"]["of it done before"] and chosen["epochs"] == 6
