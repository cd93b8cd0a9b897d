"""The MMRec protocol against its rules and tables worked by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fusionrec.errors import DataRejected
from fusionrec.recommenders.popularity import Popularity
from fusionrec.studies import protocol
from fusionrec.types import Requests
from tests.studies import folders

ROWS = [(0, 0, 0), (0, 1, 0), (0, 2, 1), (0, 3, 2), (1, 0, 0), (1, 3, 0), (1, 1, 2), (1, 4, 2), (7, 2, 2), (8, 0, 1)]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Users 7 and 8 have nothing in train; item 4 is touched in test alone, item 5 by nobody."""
    root = tmp_path / "tiny"
    root.mkdir()
    lines = ["userID\titemID\tx_label", *("\t".join(map(str, row)) for row in ROWS)]
    (root / "tiny.inter").write_text("\n".join(lines) + "\n")
    np.save(root / "text_feat.npy", np.arange(1.0, 19.0).reshape(6, 3))
    return root


def named(bench: protocol.Bench, part: str) -> set[tuple[int, str]]:
    pairs = {"train": bench.known.train, "valid": bench.known.valid, "test": bench.test, "masked": bench.masked}[part]
    return {(int(u), bench.known.items.ids[i]) for u, i in zip(pairs.user, pairs.item, strict=True)}


def test_a_folder_known_by_hand(tiny: Path) -> None:
    bench = protocol.load(tiny)
    known = bench.known
    assert known.train.n_users == 2 and len(known.items) == 6  # items 4 and 5 are candidates
    mine = {item for u, item in named(bench, "train") if (u, "1") in named(bench, "train")}
    assert mine == {"0", "1"}
    assert {item for _, item in named(bench, "valid")} == {"2"} and len(known.valid) == 1
    assert sorted(item for _, item in named(bench, "test")) == ["1", "3", "4"]
    assert named(bench, "masked") == named(bench, "train")
    row = known.items.ids.index("4")
    assert known.items.features["text"][row].tolist() == [13.0, 14.0, 15.0]


class Fixed:
    """Ranks the items 3, 0, 2, 4, 1, 5 for everybody, without what was seen."""

    def __init__(self, ids: tuple[str, ...]) -> None:
        self.order = [ids.index(name) for name in "302415"]

    def recommend(self, requests: Requests, k: int, candidates=None, block: int = 0):
        out = np.full((len(requests), k), -1, np.int64)
        for row in range(len(requests)):
            seen = set(requests.history[row].indices.tolist())
            left = [i for i in self.order if i not in seen and (candidates is None or candidates[i])]
            out[row, : len(left)] = left[:k]
        return out, np.zeros(out.shape, np.float32)


def test_metrics_known_by_hand(tiny: Path) -> None:
    bench = protocol.load(tiny)
    result = protocol.test_result(Fixed(bench.known.items.ids), bench)
    means = {name: result.mean("all", name)[0] for name in result.values["all"]}
    # user 0 has seen 0 and 1 and gets 3, 2, 4, 5; 3 is the positive: rank 1 (2, of validation, stays in the list)
    # user 1 has seen 0 and 3 and gets 2, 4, 1, 5; 4 and 1 are the positives: ranks 2 and 3
    ideal = 1 + 1 / np.log2(3)
    assert means["recall@5"] == pytest.approx(1.0)
    assert means["precision@5"] == pytest.approx((1 / 5 + 2 / 5) / 2)
    assert means["ndcg@20"] == pytest.approx((1 + (1 / np.log2(3) + 1 / np.log2(4)) / ideal) / 2)
    assert means["map@50"] == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)
    assert protocol.validate(Fixed(bench.known.items.ids), bench.known) == 1.0


def test_the_random_split_follows_the_rule() -> None:
    sizes = {3: (1, 1, 1), 5: (3, 1, 1), 9: (7, 1, 1), 10: (8, 1, 1), 14: (12, 1, 1), 15: (12, 1, 2), 27: (22, 2, 3)}
    sizes |= {1: (1, 0, 0), 2: (2, 0, 0)}
    user = np.repeat(np.arange(len(sizes)), list(sizes))
    mixed = np.random.default_rng(3).permutation(user)
    for users in (user, mixed):
        label = protocol.random_labels(users, 0)
        found = {n: tuple(np.bincount(label[users == u], minlength=3)) for u, n in enumerate(sizes)}
        assert found == sizes
    assert not np.array_equal(protocol.random_labels(user, 0), protocol.random_labels(user, 1))
    assert np.array_equal(protocol.random_labels(user, 0), protocol.random_labels(user, 0))


def test_without_labels_the_core_is_split(tmp_path: Path) -> None:
    root = folders.write(tmp_path / "bare", labels=False)
    path = root / "bare.inter"
    path.write_text(path.read_text() + "99\t0\n99\t1\n")  # a user below the core
    bench = protocol.load(root)
    pairs = sum(len(x) for x in (bench.known.train, bench.known.valid, bench.test))
    assert pairs == folders.N_USERS * 11 and len(bench.known.valid) == folders.N_USERS == len(bench.test)
    assert not named(bench, "train") & named(bench, "test")
    again, other = protocol.load(root), protocol.load(root, protocol.Rules(seed=4))
    assert again.digest == bench.digest != other.digest
    with pytest.raises(DataRejected, match="nothing to train on: no pair of bare is left in the 40-core"):
        protocol.load(root, protocol.Rules(core=40))


def test_hidden_cells_are_gone_and_grow_with_the_share(tmp_path: Path) -> None:
    root = folders.write(tmp_path / "set")
    full, some, more = (protocol.load(root, protocol.Rules(missing=m)).known.items for m in (0.0, 0.3, 0.6))
    for name in full.modalities:
        assert full.present[name].all()
        assert 0.1 < 1 - some.present[name].mean() < 0.5 < 1 - more.present[name].mean() + 0.1
        assert not (more.present[name] & ~some.present[name]).any()
        assert not some.features[name][~some.present[name]].any()
    assert not np.array_equal(some.present["image"], some.present["text"])


def test_cold_items_are_out_of_train_and_have_their_slices(tmp_path: Path) -> None:
    root = folders.write(tmp_path / "set")
    bench = protocol.load(root, protocol.Rules(cold=0.25))
    assert 0 < bench.cold.sum() < folders.N_ITEMS / 2
    assert not bench.cold[bench.known.train.item].any() and bench.cold[bench.test.item].any()
    model = Popularity().build()
    model.fit(bench.known.train, bench.known.valid, bench.known.items, seed=0)
    result = protocol.test_result(model, bench)
    assert set(result.lists) == {"all", "warm", "cold", "cold_only"}
    shown = result.lists["cold_only"]
    assert bench.cold[shown[shown >= 0]].all()
    positives = protocol.test_slices(bench)
    assert positives["warm"].nnz + positives["cold"].nnz == positives["all"].nnz == len(bench.test)


def test_cold_items_stay_out_of_a_train_that_is_joined_with_validation(tmp_path: Path) -> None:
    bench = protocol.load(folders.write(tmp_path / "planted"), protocol.Rules(cold=0.3, join=True))
    assert bench.cold.any() and not bench.cold[bench.known.train.item].any()
    assert not bench.cold[bench.masked.item].any() and bench.cold[bench.test.item].any()


def test_joined_train_and_validation_are_masked_together(tmp_path: Path) -> None:
    root = folders.write(tmp_path / "set")
    plain, joined = protocol.load(root), protocol.load(root, protocol.Rules(join=True))
    official = len(plain.known.train) + len(plain.known.valid)
    assert len(joined.masked) == official
    assert (np.bincount(joined.known.valid.user, minlength=folders.N_USERS) == 1).all(), "one pair of each"
    assert named(joined, "train") | named(joined, "valid") == named(joined, "masked")
    assert not named(joined, "train") & named(joined, "valid")
    assert named(joined, "test") == named(plain, "test")
    assert set(joined.known.train.user) == set(range(folders.N_USERS))


def test_what_choosing_sees_does_not_depend_on_the_test(tmp_path: Path) -> None:
    root = folders.write(tmp_path / "set")
    before = protocol.load(root)
    folders.shuffle_test(root)
    after = protocol.load(root)
    assert after.known.digest == before.known.digest and after.digest != before.digest
    assert not hasattr(before.known, "test")


def test_nothing_in_train_is_refused(tiny: Path) -> None:
    (tiny / "tiny.inter").write_text("userID\titemID\tx_label\n0\t1\t2\n0\t2\t1\n")
    with pytest.raises(DataRejected, match="nothing to train on: of 2 pairs of tiny none is in train"):
        protocol.load(tiny)


def test_ids_of_any_size_take_no_room(tiny: Path) -> None:
    """A table by id would take 16 GB here."""
    file = tiny / "tiny.inter"
    plain = protocol.load(tiny)
    file.write_text(file.read_text().replace("\n1\t", "\n2000000000\t"))
    bench = protocol.load(tiny)
    assert len(bench.known.train) == len(plain.known.train) and bench.known.train.n_users == 2
    assert sorted(np.bincount(bench.test.user)) == sorted(np.bincount(plain.test.user))
