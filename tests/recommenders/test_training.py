"""The one training loop: what it optimises, when it stops, and that an interrupted one ends like a straight one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fusionrec.fusion.concat import Concat
from fusionrec.kinds import members
from fusionrec.recommenders import AnyRetriever
from fusionrec.recommenders.training import Training, draws, resumable, share, train
from tests.recommenders.trainings import world

TRAINED = {s.model_fields["kind"].default: s for s in members(AnyRetriever) if "training" in s.model_fields}
NEEDED: dict[str, dict[str, object]] = {"generated": {"of": {"kind": "popularity"}}}  # of kinds with required keys
PARTS = ("features", "present", "group")  # of a catalogue
EVERY = float("inf")  # a checkpoint after every epoch


class Point(torch.nn.Module):
    """One number, pulled to 3."""

    def __init__(self) -> None:
        super().__init__()
        self.x = torch.nn.Parameter(torch.zeros(1))

    def loss(self) -> torch.Tensor:
        return ((self.x - 3) ** 2).sum()


def run(how: Training, values: list[float] | None = None) -> tuple[Point, list[dict[str, float]], float]:
    """Train a Point; validation says ``values`` one after the other (default: how near it is)."""
    point, curve, told = Point(), [], iter(values or [])
    validate = (lambda: next(told)) if values else (lambda: -float(point.loss().detach()))
    best = train(point, lambda epoch: [point.loss] * 2, validate, how, lambda epoch, row: curve.append(dict(row)))
    return point, curve, best


def test_it_goes_downhill_by_adam_and_reports_the_named_metric() -> None:
    point, curve, best = run(Training(epochs=7, lr=0.1, weight_decay=0, metric="recall@20"))
    assert [set(row) for row in curve] == [{"loss", "valid_recall@20"}] * 7
    # Adam's first steps have the length of the learning rate: 0, then 0.1
    assert curve[0]["loss"] == pytest.approx((3**2 + 2.9**2) / 2, rel=1e-4)
    assert all(a["loss"] > b["loss"] for a, b in zip(curve, curve[1:]))
    assert best == pytest.approx(-float(point.loss().detach()))


def test_it_stops_after_patience_and_ends_on_the_best_weights() -> None:
    point, curve, best = run(Training(epochs=50, lr=0.1, weight_decay=0, patience=3), [0.1, 0.4, 0.4, 0.3, 0.2, 0.9])
    assert (len(curve), best) == (5, 0.4)
    four_steps, *_ = run(Training(epochs=2, lr=0.1, weight_decay=0))
    assert torch.equal(point.x, four_steps.x)
    assert not point.training


def test_patience_counts_validations_and_the_last_epoch_is_validated() -> None:
    _, curve, _ = run(Training(epochs=7, valid_every=3, patience=0), [0.3, 0.2, 0.5])
    assert [i for i, row in enumerate(curve) if "valid_ndcg@20" in row] == [2, 5, 6]
    _, curve, _ = run(Training(epochs=70, valid_every=3, patience=2), [0.3, 0.2, 0.1, 0.9])
    assert len(curve) == 9


def test_the_learning_rate_decays_by_epoch() -> None:
    point, *_ = run(Training(epochs=3, lr=0.1, weight_decay=0, decay=0.5), [1, 2, 3])
    assert float(point.x.detach()) == pytest.approx(2 * (0.1 + 0.05 + 0.025), rel=1e-2)


def test_with_nothing_to_judge_by_the_last_epoch_stands_and_patience_does_not_count() -> None:
    point, curve, best = run(Training(epochs=4, lr=0.1, weight_decay=0, patience=2), [float("nan")] * 4)
    assert [set(row) for row in curve] == [{"loss"}] * 4 and best == -np.inf
    all_of_them, *_ = run(Training(epochs=4, lr=0.1, weight_decay=0))
    assert torch.equal(point.x, all_of_them.x)


def test_a_loss_that_is_not_finite_is_named() -> None:
    point = Point()

    def batches(epoch: int) -> list[Callable[[], torch.Tensor]]:
        return [point.loss, point.loss, lambda: point.loss() * (float("nan") if epoch == 1 else 1)]

    with pytest.raises(ValueError, match=r"batch 2 of epoch 1: lower the learning rate \(lr is 0.007\)"):
        train(point, batches, lambda: 0.0, Training(epochs=5, lr=0.007), lambda epoch, row: None)


def test_every_epoch_has_its_own_draws_whatever_was_drawn_before() -> None:
    assert np.array_equal(draws(3, 5).random(7), draws(3, 5).random(7))
    assert not np.array_equal(draws(3, 5).random(7), draws(3, 6).random(7))
    assert not np.array_equal(draws(3, 5).random(7), draws(4, 5).random(7))

    def seen(disturb: bool) -> list[float]:
        point, out = Point(), []

        def batches(epoch: int) -> Iterator[Callable[[], torch.Tensor]]:
            out.append(float(torch.rand(1)) + np.random.rand())
            yield point.loss

        def validate() -> float:
            if disturb:
                torch.rand(11), np.random.rand(13)
            return 0.0

        train(point, batches, validate, Training(epochs=3), lambda epoch, row: None, seed=4)
        return out

    assert seen(False) == seen(True)
    assert len(set(seen(False))) == 3


def test_the_shares_of_all_processes_are_the_batch(monkeypatch) -> None:
    rows = np.arange(10, 17)
    assert share(rows) is rows
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "3")
    parts = []
    for rank in "012":
        monkeypatch.setenv("RANK", rank)
        parts.append(share(rows).tolist())
        assert len(share(rows[:1])) == 1  # nobody has nothing
        assert len(share(rows[:0])) == 0
    assert parts == [[10, 13, 16], [11, 14, 10], [12, 15, 11]]


# ---------------------------------------------------------------------------------------------- resume


class Stopped(Exception):
    """Ends a training from outside."""


def fit(kind: str, stop: int | None = None) -> tuple[dict[str, np.ndarray], list[tuple[int, dict[str, float]]]]:
    """The arrays and the curve of a small model; Stopped when the watch sees epoch ``stop``."""
    train_set, valid, items = world()
    both = {part: {**getattr(items, part), "image": getattr(items, part)["text"]} for part in PARTS}
    items = replace(items, **both)
    settings = {"epochs": 5, "batch": 32, "patience": 0}
    section = {"kind": kind, "training": settings, **NEEDED.get(kind, {})}
    model = TRAINED[kind].model_validate(section).build(Concat())
    curve: list[tuple[int, dict[str, float]]] = []

    def watch(epoch: int, row: dict[str, float]) -> None:
        if epoch == stop:
            raise Stopped
        curve.append((epoch, dict(row)))

    model.fit(train_set, valid, items, seed=3, watch=watch)
    return model.arrays(), curve


def same(one, other) -> None:
    assert one[1] == other[1]
    assert one[0].keys() == other[0].keys()
    for name in one[0]:
        assert np.array_equal(one[0][name], other[0][name]), name


@pytest.mark.parametrize("kind", sorted(TRAINED))
def test_an_interrupted_training_ends_bit_for_bit_like_a_straight_one(kind: str, tmp_path: Path) -> None:
    straight = fit(kind)
    with pytest.raises(Stopped), resumable(tmp_path, effort=EVERY):
        fit(kind, stop=3)
    assert [f.name for f in sorted(tmp_path.glob("01/*"))] == ["epoch-00002", "epoch-00003"]
    torch.rand(5)  # whatever happened to the global generator meanwhile
    with resumable(tmp_path, effort=EVERY):
        same(fit(kind), straight)
    with resumable(tmp_path):  # finished: nothing is trained again
        same(fit(kind), straight)


def _tear(folder: Path) -> None:
    file = folder / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-9])


def _flip(folder: Path) -> None:
    file = folder / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 4
    file.write_bytes(content)


def _count(folder: Path) -> None:
    file = folder / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "epoch": 1}))


DAMAGE = [_tear, _flip, _count, lambda folder: (folder / "state.json").unlink(), lambda folder: shutil.rmtree(folder)]


@pytest.mark.parametrize("damage", DAMAGE, ids=["torn", "flipped bit", "counter", "no counters", "gone"])
@pytest.mark.parametrize("how_many", [1, 2])
def test_a_damaged_checkpoint_is_passed_over(damage: Callable[[Path], None], how_many: int, tmp_path: Path) -> None:
    straight = fit("bpr")
    with pytest.raises(Stopped), resumable(tmp_path, effort=EVERY):
        fit("bpr", stop=3)
    for folder in sorted(tmp_path.glob("01/*"))[-how_many:]:
        damage(folder)
    (tmp_path / "01" / ".epoch-00004.abc.tmp").mkdir()  # what a kill leaves
    with resumable(tmp_path, effort=EVERY):
        same(fit("bpr"), straight)
    assert [f.name for f in sorted(tmp_path.glob("01/*"))] == ["epoch-00004", "epoch-00005"]
    assert not list(tmp_path.glob("01/.*"))


def test_a_checkpoint_of_another_training_is_not_used(tmp_path: Path) -> None:
    with resumable(tmp_path, effort=EVERY):
        fit("two_tower")
    with resumable(tmp_path, effort=EVERY):
        same(fit("bpr"), fit("bpr"))


def test_trainings_inside_one_folder_are_numbered_by_call(tmp_path: Path) -> None:
    with resumable(tmp_path):
        first, second = run(Training(epochs=3)), run(Training(epochs=4))
    assert sorted(f.name for f in tmp_path.iterdir()) == ["01", "02"]
    with resumable(tmp_path):
        again = run(Training(epochs=3)), run(Training(epochs=4))
    assert [r[1] for r in again] == [first[1], second[1]]
    run(Training(epochs=2))  # outside: no third one
    assert len(list(tmp_path.iterdir())) == 2


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from fusionrec.recommenders import checkpoints
from fusionrec.recommenders.training import resumable
from tests.recommenders.test_training import EVERY, fit

where, at, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
written = 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

if where == "tensors":
    import safetensors.torch as st
    real = st.save_file
    def half(tensors, path):
        global written
        written += 1
        real(tensors, path)
        if written == at:
            os.truncate(path, os.path.getsize(path) // 2)
            die()
    st.save_file = half
elif where == "counters":
    real = checkpoints.write_bytes
    def before(path, content):
        global written
        written += 1
        if written == at:
            Path(path).write_bytes(content[: len(content) // 2])
            die()
        real(path, content)
    checkpoints.write_bytes = before
elif where == "rename":
    real_rename = os.rename
    def rename(a, b):
        global written
        real_rename(a, b)
        written += 1
        if written == at:
            die()
    os.rename = rename
with resumable(folder, effort=EVERY):
    arrays, curve = fit("bpr")
np.savez(folder / "arrays.npz", **arrays)
print([[e, {k: repr(v) for k, v in row.items()}] for e, row in curve])
"""


@pytest.mark.faults
@pytest.mark.parametrize("where, newest", [("tensors", 2), ("counters", 2), ("rename", 3)])
def test_x04_killed_in_the_middle_of_a_checkpoint(where: str, newest: int, tmp_path: Path, repository: Path) -> None:
    """kill -9 while the third checkpoint is written: the newest complete one is used, and the end is the same."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(repository / "src"), str(repository)))}

    def child(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", KILLED, *arguments, str(tmp_path)]
        return subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=100)

    assert child(where, "3").returncode == -9
    complete = [f.name for f in sorted(tmp_path.glob("01/epoch-*"))]
    assert complete[-1] == f"epoch-{newest:05d}"
    assert len(list(tmp_path.glob("01/.*.tmp"))) == (0 if where == "rename" else 1)
    done = child("nowhere", "0")
    assert done.returncode == 0, done.stderr
    arrays, curve = fit("bpr")
    assert done.stdout.strip() == str([[e, {k: repr(v) for k, v in row.items()}] for e, row in curve])
    with np.load(tmp_path / "arrays.npz") as resumed:
        for name, value in arrays.items():
            assert np.array_equal(resumed[name], value), name
