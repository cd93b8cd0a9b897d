"""Small catalogues and a deterministic retriever for the evaluation tests."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from fusionrec.recommenders.base import Retriever
from fusionrec.types import ItemSet, Requests, item_order


class Table(Retriever):
    """A real retriever whose scores are content: the history's mean feature against every item's, per modality.

    It learns one popularity prior; masked modalities contribute nothing, so a knock-out changes its answer.
    """

    retrieval = "dense"
    folds_in = cold_user = cold_item = True

    def _fit(self, train, valid, items, seed, watch):
        count = np.bincount(train.item, minlength=len(items)).astype(np.float32)
        self.prior = count / max(count.max(), 1)

    def _score(self, requests):
        out = np.zeros((len(requests), len(self.items)), np.float32)
        for name in self.items.modalities:
            x = self.items.features[name] * self.items.present[name][:, None]
            out += (requests.history @ x) @ x.T
        return out + 1e-3 * self.scores_at_fit(np.tile(self.prior, (len(requests), 1)))

    def arrays(self):
        return {"prior": self.prior}

    def _restore(self, arrays):
        self.prior = arrays["prior"]


class World:
    """A planted catalogue: users like one value of a taste that only the given modality shows."""

    def __init__(self, n_users=60, n_items=90, n_cold=25, seed=0, per_user=5):
        from fusionrec.types import Interactions

        rng = np.random.default_rng(seed)
        ids = tuple(item_order(f"item-{i}" for i in range(n_items)))
        text, image = rng.integers(0, 4, n_items), rng.integers(0, 3, n_items)
        has_image = rng.random(n_items) > 0.2
        self.items = ItemSet(
            ids,
            {
                "text": np.eye(4, dtype=np.float32)[text],
                "image": np.eye(3, dtype=np.float32)[image] * has_image[:, None].astype(np.float32),
            },
            {"text": np.ones(n_items, bool), "image": has_image},
            {"text": np.zeros(n_items, np.int16), "image": np.zeros(n_items, np.int16)},
        )
        self.cold = np.zeros(n_items, bool)
        self.cold[rng.permutation(n_items)[:n_cold]] = True
        t, v = rng.integers(0, 4, n_users), rng.integers(0, 3, n_users)
        history = np.zeros((n_users, n_items), np.float32)
        positives = np.zeros((n_users, n_items), np.float32)
        for u in range(n_users):
            like = np.exp(2.0 * (text == t[u]) + 1.5 * (image == v[u])) + 0.05
            warm = like * ~self.cold
            chosen = rng.choice(n_items, per_user, replace=False, p=warm / warm.sum())
            history[u, chosen] = 1
            rest = like * (history[u] == 0)
            positives[u, rng.choice(n_items, 3, replace=False, p=rest / rest.sum())] = 1
        self.history, self.positives = sparse.csr_matrix(history), sparse.csr_matrix(positives)
        self.users = [f"{u:032x}" for u in range(n_users)]
        self.requests = Requests(np.arange(n_users, dtype=np.int64), self.history)
        rows, cols = self.history.nonzero()
        self.train = Interactions(
            rows.astype(np.int32), cols.astype(np.int32), np.arange(len(rows), dtype=np.int64), n_users, n_items
        )

    def model(self) -> Table:
        model = Table()
        model.fit(self.train, self.train, self.items)
        return model


@pytest.fixture
def world() -> World:
    return World()


HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>{{ 7*7 }}\u202e\U0001f600'
"""A title that would break out of an attribute, of a text, or of a template."""


def shown(pairs, ids, rng):
    """What was shown: each of the pairs, clicked, and beside each an item at random that was not."""
    import polars as pl

    from fusionrec.data.outcomes import SCHEMA, UNTIL

    empty = {name: pl.lit(None, dtype=kind).alias(name) for name, kind in SCHEMA.items() if name != UNTIL}
    other = pairs.with_columns(item_id=pl.Series([ids[n] for n in rng.integers(0, len(ids), pairs.height)]))
    both = [part.with_columns(click=pl.lit(yes)) for part, yes in ((pairs, True), (other, False))]
    lacks = [column for name, column in empty.items() if name not in both[0].columns]
    return pl.concat(both).with_columns(lacks).select(list(empty)).sort("timestamp", "user_id", "item_id")


def write_project(folder, world: World, *, retriever="content", seed=0, timestamps=True):
    """A project folder up to and including the stages before train, with real files in the contract's formats."""
    import hashlib

    import polars as pl
    from PIL import Image

    from fusionrec import config
    from fusionrec.data import outcomes, tables
    from fusionrec.data.files import write_bytes
    from fusionrec.data.ingest import Canonical
    from fusionrec.data.schema import quarantine
    from fusionrec.embeddings import base as embeddings
    from fusionrec.embeddings.engine import Embedded
    from fusionrec.encoders.identity import Identity
    from fusionrec.modalities.base import ModalityRows
    from fusionrec.paths import Paths

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text("{}\n")
    paths, raw = Paths(folder, folder / ".fusionrec"), folder / "raw"
    (raw / "pictures").mkdir(parents=True)
    rng = np.random.default_rng(seed)
    ids = world.items.ids
    images: list[list[str] | None] = []
    digests: list[list[str] | None] = []
    for row, _ in enumerate(ids):
        if not world.items.present["image"][row]:
            images.append(None)
            digests.append(None)
            continue
        colour = tuple(int(v) for v in 60 + 150 * world.items.features["image"][row])
        name = f"pictures/{row}.jpg"
        Image.new("RGB", (64, 48), colour).save(raw / name)
        images.append([name])
        digests.append([hashlib.sha256((raw / name).read_bytes()).hexdigest()])
    titles = [HOSTILE if row % 7 == 0 else ("红木 台灯" if row % 2 else f"Lamp {row}") for row in range(len(ids))]
    items = pl.DataFrame(
        {
            "item_id": list(ids),
            "title": titles,
            "category": ["<b>lamps</b>" if r % 3 else "灯具" for r in range(len(ids))],
            "image_paths": pl.Series(images, dtype=pl.List(pl.String)),
            "image_sha256": pl.Series(digests, dtype=pl.List(pl.String)),
            "image_format": pl.Series([d and ["jpeg"] for d in digests], dtype=pl.List(pl.String)),
        }
    )
    tables.write(paths, Canonical({"items": items}, quarantine(), {}))
    write_bytes(paths.gate / "quarantine.parquet", tables.parquet(quarantine()))

    def frame(pairs, start):
        rows, cols = pairs.nonzero()
        time = pl.Series(1_700_000_000_000_000 + start + np.arange(len(rows)), dtype=pl.Int64)
        time = time.cast(pl.Datetime("us", "UTC"))
        if not timestamps:
            time = pl.Series([None] * len(rows), dtype=pl.Datetime("us", "UTC"))
        return pl.DataFrame(
            {"user_id": [world.users[u] for u in rows], "item_id": [ids[i] for i in cols], "timestamp": time}
        )

    train, valid = world.history.tolil(), sparse.lil_matrix(world.history.shape)
    for u in range(len(world.users)):
        last = world.history[u].indices[-1]
        train[u, last], valid[u, last] = 0, 1
    for u in range(0, 3):  # users without a row in train
        for i in world.history[u].indices:
            train[u, i] = 0
    parts = {"train": train.tocsr(), "valid": valid.tocsr(), "test": world.positives}
    write_bytes(paths.splits / "items.parquet", tables.parquet(pl.DataFrame({"item_id": list(ids)})))
    for at, (name, part) in enumerate(parts.items()):
        part.eliminate_zeros()
        write_bytes(paths.splits / f"{name}.parquet", tables.parquet(frame(part, at * 1_000_000)))
        write_bytes(outcomes.file_of(paths, name), tables.parquet(shown(frame(part, at * 1_000_000), ids, rng)))
    write_bytes(paths.splits / "users.parquet", tables.parquet(pl.DataFrame({"user_id": world.users})))
    for name in world.items.modalities:
        target = paths.embeddings / name
        target.mkdir(parents=True)
        noise = rng.normal(0, 0.05, world.items.features[name].shape).astype(np.float32)
        present = world.items.present[name]
        vectors = (world.items.features[name] + noise) * present[:, None].astype(np.float32)
        content = [f"{row:064x}" if p else "" for row, p in enumerate(present)]
        rows = ModalityRows(present, content, world.items.group[name])
        embeddings.write(target, name, "precomputed", ids, rows, Embedded(vectors, present, Identity(), 0, 0))
    params = config.parse(
        {
            "source": {"kind": "folder", "root": "raw"},
            "split": {"kind": "global_time", "valid_from": 71, "test_from": 81},
            "modalities": {n: {"kind": "precomputed", "file": f"{n}.npz"} for n in world.items.modalities},
            "train": {
                "retriever": {"kind": retriever} if isinstance(retriever, str) else retriever,
                "fusion": {"kind": "concat"},
                "baselines": [{"kind": "popularity"}, {"kind": "ease"}],
            },
            "rank": {"ranker": {"kind": "logistic"}, "baselines": [{"kind": "biases"}]},
            "evaluate": {"bootstrap": 400, "samples": 5},
        }
    )
    return params, paths


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory):
    """(params, paths, report, world) of a small project, trained and evaluated for real."""
    from fusionrec.stages import evaluate, rank, train

    world = World(n_users=120, n_items=110, n_cold=35, seed=2)
    params, paths = write_project(tmp_path_factory.mktemp("project") / "p", world)
    train.run(params, paths)
    rank.run(params, paths)
    return params, paths, evaluate.run(params, paths), world


@pytest.fixture(scope="session")
def hostile() -> str:
    return HOSTILE


@pytest.fixture
def small_project(tmp_path):
    """``small_project(**options)``: (params, paths) of a small project that is not trained yet."""
    world = World(n_users=30, n_items=40, n_cold=9, seed=4)
    return lambda **options: write_project(tmp_path / "p", world, **options)
