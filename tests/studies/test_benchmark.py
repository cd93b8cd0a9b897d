"""Models against each other end to end: chosen without the test, resumed to the same end, failures told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionrec.errors import Busy, ConfigError, UsageError
from fusionrec.evaluation import metrics
from fusionrec.studies import benchmark, comparison, contestants, protocol, unit
from fusionrec.studies.benchmark import Effort
from fusionrec.studies.runner import Runner
from tests.studies import folders
from tests.studies.toys import Few

MODELS = contestants.chosen(["item_knn", "popularity"], None)
EFFORT = Effort(trials=2, seeds=1, jobs=2, test_selected=True)
UNITS = 6  # two trials, two seeds, two trials tested on request (one of them is the chosen one: its unit exists)


def stable(results: dict[str, Any]) -> dict[str, Any]:
    """The results without clocks and without the commit, which may be made between two runs."""
    out = json.loads(json.dumps(results))
    del out["commit"]
    for entry in out["models"]:
        del entry["seconds"]
        for trial in entry["trials"]:
            del trial["seconds"]
    return out


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Path]:
    """folder, results of a run that nothing disturbed, its home."""
    place = tmp_path_factory.mktemp("bench")
    folder = folders.write(place / "planted")
    return folder, benchmark.run(folder, MODELS, EFFORT, place / "home"), place / "home"


@pytest.mark.slow
def test_the_better_model_is_first_and_every_number_is_there(world: tuple[Path, dict[str, Any], Path]) -> None:
    _, results, _ = world
    knn, popularity = results["models"]
    assert len(knn["trials"]) == 2 and knn["trials"][0]["point"] == {
        field: knn["trials"][0]["point"][field] for field in ("neighbours", "shrinkage", "user_power")
    }
    best = max(knn["trials"], key=lambda t: t["value"])
    assert {f: knn["chosen"]["retriever"][f] for f in best["point"]} == best["point"]
    assert knn["valid"] == pytest.approx(best["value"], abs=1e-6)
    assert popularity["trials"] == [] and popularity["valid"] is None
    assert set(knn["metrics"]["all"]) == {
        f"{m}@{k}" for m in ("recall", "ndcg", "precision", "map") for k in (5, 10, 20, 50)
    }
    for entry in results["models"]:
        for cell in entry["metrics"]["all"].values():
            assert 0 <= cell["low"] <= cell["mean"] <= cell["high"] <= 1 and cell["n"] == folders.N_USERS
    recall = results["tests"]["all"][0]
    assert (
        recall["metric"] == "recall@20" and recall["best"] == "item_knn" and recall["comparisons"][0]["p_holm"] < 0.05
    )
    assert recall["places"] == {"item_knn": "first", "popularity": "2"}
    assert results["set"]["modalities"] == {"image": [6, 36], "text": [5, 36]}
    habit = knn["test_selected"]
    assert habit["recall@20"] >= knn["metrics"]["all"]["recall@20"]["seeds"][0] and "test_selected" not in popularity
    rows = benchmark.rows_for_people(results)
    assert [row["model"] for row in rows] == ["item_knn", "popularity"] and rows[0]["place"] == "first"
    assert rows[1]["CHOSEN ON TEST (seed 0)"] == "–"


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_end(
    world: tuple[Path, dict[str, Any], Path], tmp_path: Path
) -> None:
    folder, straight, _ = world

    def once(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        benchmark.run(folder, MODELS, EFFORT, tmp_path, say=once)
    done = set(tmp_path.rglob("*.json"))
    assert 1 <= len(done) < UNITS and all(json.loads(path.read_text())["status"] == "done" for path in done)
    before = {path: path.stat().st_mtime_ns for path in done}
    torn = sorted(done)[0].with_name("valid-0-0123456789abcdef.json")
    torn.write_text('{"status": "do')  # what a crash of the disk may leave; nobody reads it as a result
    told: list[str] = []
    resumed = benchmark.run(folder, MODELS, EFFORT, tmp_path, say=told.append)
    assert stable(resumed) == stable(straight)
    assert {path: path.stat().st_mtime_ns for path in done} == before
    again: list[str] = []
    assert stable(benchmark.run(folder, MODELS, EFFORT, tmp_path, say=again.append)) == stable(straight)
    assert told and again == []


@pytest.mark.slow
def test_another_test_set_changes_no_choice(world: tuple[Path, dict[str, Any], Path], tmp_path: Path) -> None:
    _, straight, home = world
    folder = folders.write(tmp_path / "planted")
    folders.shuffle_test(folder)
    results = benchmark.run(folder, MODELS[:1], Effort(trials=2, seeds=1, jobs=2), tmp_path / "home")
    before, after = straight["models"][0], results["models"][0]
    assert after["chosen"] == before["chosen"] and after["valid"] == before["valid"]
    assert [t["value"] for t in after["trials"]] == [t["value"] for t in before["trials"]]
    assert after["metrics"]["all"]["recall@20"]["mean"] < before["metrics"]["all"]["recall@20"]["mean"]
    for path in home.rglob("valid-*.json"):
        assert "test" not in json.loads(path.read_text())


@pytest.mark.slow
def test_what_fails_is_told_and_the_others_go_on(world: tuple[Path, dict[str, Any], Path], tmp_path: Path) -> None:
    folder, _, home = world
    with pytest.raises(ConfigError, match="no model came through:\n  popularity: TimeoutError: not done after 0 s"):
        benchmark.run(folder, MODELS[1:], Effort(seeds=1, minutes=0.0, grace=0.05), tmp_path)
    bad = contestants.parse("bad", {"kind": "bpr", "dim": 3, "training": {"lr": 1e30}})
    results = benchmark.run(folder, [bad, MODELS[1]], Effort(seeds=1, jobs=2), home)
    failed, good = results["models"]
    assert failed["failed"][0].startswith("ValueError: the loss is") and failed["metrics"] == {}
    assert good["failed"] == [] and results["tests"]["all"][0]["places"] == {"popularity": "alone"}
    rows = benchmark.rows_for_people(results)
    assert rows[1]["model"] == "bad" and rows[1]["Recall@20"].startswith("failed: ValueError: the loss is")


class Scripted(Runner):
    """A runner whose units end as ``script`` says, by how often each was asked for."""

    script: Any
    asked: Counter[int]

    def run(self, who: contestants.Contestant, what: str, seed: int) -> dict[str, Any]:
        size = who.spec.size  # type: ignore[attr-defined]
        self.asked[size] += 1
        return dict(self.script(size, self.asked[size]))


def scripted(folder: Path, script: Any) -> Scripted:
    runner = Scripted(folder, protocol.Rules(), folder / "state")
    runner.script, runner.asked = script, Counter()
    return runner


FEW = contestants.Contestant("few", Few())


@pytest.mark.parametrize(
    "reason", ["ended by SIGKILL: ", "TimeoutError: not done after 120 s", "ended with 1: OSError"]
)
def test_a_unit_that_did_not_end_by_itself_is_asked_for_again_by_the_next_run(tmp_path: Path, reason: str) -> None:
    def script(size: int, time: int) -> dict[str, Any]:
        lost = {"status": "failed", "reason": reason}
        return lost if size == 5 and time == 1 else {"status": "done", "valid": size / 10}

    runner = scripted(tmp_path, script)
    first = benchmark.choose(runner, FEW, 3, "d")
    assert first.model.spec == Few(size=4) and [t.reason for t in first.trials if t.state == "failed"] == [reason]
    second = benchmark.choose(runner, FEW, 3, "d")
    assert second.model.spec == Few(size=5) and {t.state for t in second.trials} == {"done"}
    assert runner.asked == {4: 1, 2: 1, 5: 2}


def test_a_search_in_which_all_failed_is_told_and_any_other_trouble_stops_the_benchmark(tmp_path: Path) -> None:
    failed = {"status": "failed", "reason": "ValueError: the loss is nan"}
    runner = scripted(tmp_path, lambda size, time: failed)
    choice = benchmark.choose(runner, FEW, 3, "d")
    assert choice.model == FEW and choice.found is None and len(choice.trials) == 3
    entry = benchmark._entry(choice, [failed], Effort(trials=3))
    assert [t["reason"] for t in entry["trials"]] == ["ValueError: the loss is nan"] * 3 and entry["valid"] is None
    assert [t.reason for t in benchmark.choose(runner, FEW, 3, "d").trials] == ["ValueError: the loss is nan"] * 3
    assert runner.asked == {4: 1, 2: 1, 5: 1}, "what failed by itself is not repeated"
    with pytest.raises(ConfigError, match="made with other data"):
        benchmark.choose(runner, FEW, 3, "another")


def test_two_benchmarks_on_the_same_units_are_excluded(tmp_path: Path) -> None:
    folder = folders.write(tmp_path / "planted")
    state = tmp_path / "home" / protocol.load(folder).digest[:16]
    with benchmark.alone(state), pytest.raises(Busy, match="another process computes in units"):
        benchmark.run(folder, MODELS, EFFORT, tmp_path / "home")
    assert not list(state.rglob("*.json"))


def test_a_training_that_takes_too_long_is_cut_short_and_says_so(tmp_path: Path) -> None:
    folder = folders.write(tmp_path / "planted")
    who = contestants.parse("bpr", {"kind": "bpr", "dim": 3, "training": {"epochs": 40, "patience": 0}})
    job = {
        "folder": str(folder),
        "rules": {},
        "model": who.sections(),
        "seed": 2,
        "what": "test",
        "minutes": 1e-9,
        "threads": 1,
        "fits": str(tmp_path / "fits"),
        "checkpoints": str(tmp_path / "checkpoints"),
    }
    cut = unit.run(job)
    assert cut["capped"] and cut["epochs"] == 1 and cut["status"] == "done" and cut["valid"] > 0
    whole = unit.run({**job, "minutes": 5.0, "checkpoints": str(tmp_path / "more")})
    assert not whole["capped"] and whole["epochs"] == 40


def test_time_of_a_killed_process_counts_and_what_was_cut_short_stays_so(tmp_path: Path) -> None:
    folder, place = folders.write(tmp_path / "planted"), tmp_path / "checkpoints"
    who = contestants.parse("bpr", {"kind": "bpr", "dim": 3, "training": {"epochs": 40, "patience": 0}})
    job = {"folder": str(folder), "rules": {}, "model": who.sections(), "seed": 2, "what": "valid"}
    job |= {"minutes": 1e-9, "threads": 1, "fits": str(tmp_path / "fits"), "checkpoints": str(place)}
    unit.run(job)  # as if the process had died before its result was written: checkpoints and clock are there
    again = unit.run(job)
    assert again["capped"] and again["epochs"] == 1
    more = unit.run({**job, "minutes": 5.0})
    assert not more["capped"] and more["epochs"] == 40, "with more time it starts again"
    (place / "clock.json").write_text(json.dumps({"seconds": 400.0, "capped": False, "minutes": 5.0}))
    for kept in place.glob("01/*"):
        shutil.rmtree(kept)
    late = unit.run({**job, "minutes": 5.0})
    assert late["capped"] and late["seconds"]["fit"] > 400


def test_a_unit_of_other_code_is_refused(tmp_path: Path) -> None:
    who = contestants.parse("popularity", {"kind": "popularity"})
    job = {"model": who.sections(), "code": "older", "parent": os.getpid(), "checkpoints": str(tmp_path / "c")}
    (tmp_path / "job").write_text(json.dumps({**job, "out": str(tmp_path / "out.json"), "identity": {}}))
    subprocess.run([sys.executable, "-m", "fusionrec.studies.unit", str(tmp_path / "job")], check=True)
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["status"] == "failed" and "the source has changed" in found["reason"]


def test_ranks_of_hits_give_back_every_metric(tmp_path: Path) -> None:
    bench = protocol.load(folders.write(tmp_path / "planted"))
    model = contestants.parse("p", {"kind": "popularity"}).spec.build()
    model.fit(bench.known.train, bench.known.valid, bench.known.items, seed=0)
    result = protocol.test_result(model, bench)
    hits, n = unit.unpacked(unit.tested(model, bench)["all"])
    back = metrics.from_hits(hits, n, protocol.KS)
    for name, expected in result.values["all"].items():
        np.testing.assert_array_equal(back[name], expected)


def test_first_and_tied() -> None:
    rng = np.random.default_rng(0)
    good, noise = rng.random(211) * 0.2 + 0.5, rng.normal(0, 0.02, 211)
    found = comparison.against_best({"b": good, "a": good + noise - noise.mean() + 1e-4, "c": good - 0.1}, "ndcg@20")
    assert found["places"] == {"a": "tied", "b": "tied", "c": "3"}
    assert comparison.against_best({"a": good, "c": good - 0.1}, "ndcg@20")["places"] == {"a": "first", "c": "2"}
    assert comparison.against_best({"a": good}, "ndcg@20")["places"] == {"a": "alone"}


def test_a_changed_file_of_the_model_means_other_code() -> None:
    of = {kind: unit.code_digest({kind}) for kind in ("item_knn", "popularity", "bpr")}
    assert len(set(of.values())) == 3 and unit.code_digest({"bpr"}) == of["bpr"]
    found = unit._imported(b"from fusionrec.recommenders.training import train\nimport fusionrec.config\n")
    assert {"recommenders/training"} <= found and not any("config" in name for name in found)


@pytest.mark.parametrize(
    "text, message",
    [
        ("a: {kind: eese}", "a: "),
        ("a: 3", "expected a section"),
        ("a: {retriever: {kind: ease}, fussion: {kind: concat}}", "unknown key 'fussion'"),
        ("a: {retriever: {kind: ease}, trials: many}", "trials must be a whole number"),
        ("'../x': {kind: ease}", "is no name for a model"),
        ("[]", "must map names to models"),
        ("a: {kind: ease", "cannot be read"),
    ],
)
def test_a_file_of_specs_that_makes_no_sense(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "specs.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        contestants.chosen([], path)


def test_models_by_name_and_from_earlier_results(tmp_path: Path, world: tuple[Path, dict[str, Any], Path]) -> None:
    _, results, _ = world
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    found = contestants.chosen([], path)
    assert [c.label for c in found] == ["item_knn", "popularity"]
    assert [c.sections() for c in found] == [entry["chosen"] for entry in results["models"]]
    mixed = contestants.chosen(["popularity", "ease"], path)
    assert [c.spec.kind for c in mixed] == ["popularity", "ease"]
    with pytest.raises(UsageError, match="no model 'item_kn'.*did you mean 'item_knn'"):
        contestants.chosen(["item_kn"], path)
