"""The stages bundle and register on a small project, the model card, and a real MLflow server."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import polars as pl
import pytest
import yaml

from fusionrec import config
from fusionrec.data.split import Splits, write
from fusionrec.errors import DataRejected, GateFailed, Unavailable
from fusionrec.paths import Paths
from fusionrec.recommenders.ease import EASE
from fusionrec.recommenders.popularity import Popularity
from fusionrec.registry import description, mlflow_store, registering, tracking
from fusionrec.registry.bundle import load_bundle
from fusionrec.registry.card import inert, model_card
from fusionrec.registry.model import save_model
from fusionrec.stages import bundle, judging, promote, register

HOSTILE = "<script>alert(1)</script>|[x](javascript:y)\n# h `c`"


@pytest.fixture
def paths(home, tmp_path, world) -> Paths:
    paths = Paths(tmp_path / "project", home)
    write(
        paths,
        Splits(
            list(world.items.ids),
            {"train": world.trained, "valid": world.trained.clear(), "test": world.later},
            {},
            pl.DataFrame(),
            pl.Series(),
        ),
    )
    (paths.tables / "items").mkdir(parents=True)
    world.table.with_columns(title=pl.lit(HOSTILE)).write_parquet(paths.tables / "items/00-0.parquet")
    (paths.tables / "ledger.json").write_text("{}")
    retriever = EASE().build()
    retriever.fit(world.train, world.train.select([]), world.items.only())
    save_model(
        paths.model,
        retriever,
        spec={"retriever": {"kind": "ease"}},
        label="ease",
        modalities={},
        seed=0,
        train_end=world.trained["timestamp"].max(),
        curve=[{"epoch": 0, "loss": 0.5}],
    )
    paths.evaluation.mkdir()
    (paths.evaluation / "metrics.json").write_text(json.dumps({"model": {"all": {"ndcg@3": 0.5}}}))
    (paths.evaluation / "report.html").write_text("<p>report</p>")
    return paths


@pytest.fixture
def params():
    return config.parse(
        {
            "source": {"kind": "folder", "root": "x"},
            "modalities": {},
            "split": {"kind": "global_time", "valid_from": 2, "test_from": 3},
            "train": {"retriever": {"kind": "ease"}, "fusion": {"kind": "concat"}},
            "evaluate": {"k": [3, 5], "main_k": 3, "bootstrap": 500},
            "registry": {"promotion": {"min_pairs": 50}},
        }
    )


def digests(folder):
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.*")}


def test_bundle_is_a_function_of_its_inputs(paths, params, world):
    bundle.run(params, paths)
    first = digests(paths.bundle)
    bundle.run(params, paths)
    assert digests(paths.bundle) == first
    loaded = load_bundle(paths.bundle)
    assert loaded.about["temporal"] is True and loaded.about["metrics"] == {"ndcg@3": 0.5}
    assert len(loaded.pairs) == world.trained.height and len(loaded.users) == len(set(world.trained["user_id"]))
    assert loaded.histories().height == world.trained.height + world.later.height


def test_stages_that_did_not_run_are_named(paths, params):
    with pytest.raises(DataRejected, match="dvc repro"):
        register.run(params, paths)
    (paths.evaluation / "metrics.json").unlink()
    with pytest.raises(DataRejected, match="stage evaluate"):
        bundle.run(params, paths)


def test_register_records_where_the_model_comes_from(paths, params, monkeypatch):
    bundle.run(params, paths)
    md5 = hashlib.md5((paths.splits / "train.parquet").read_bytes(), usedforsecurity=False).hexdigest()
    lock = {
        "stages": {
            "split": {
                "outs": [
                    {"path": "data/splits/train.parquet", "md5": md5},
                    {"path": "data/splits/test.parquet", "md5": "0" * 32},
                ]
            }
        }
    }
    (paths.project / "dvc.lock").write_text(yaml.safe_dump(lock))
    first = register.run(params, paths)
    monkeypatch.setattr(register, "gather", lambda *_: pytest.fail("a known digest needs nothing gathered"))
    second = register.run(params, paths)
    assert (first.counts["created"], second.counts["created"]) == (1, 0)
    assert first.links["version"] == second.links["version"] and first.links["report"] == "data/evaluation/report.html"
    with tracking.client(paths.home) as (client, _):
        number = first.links["run"].rpartition("/")[2]
        run = client.get_run(number)
        files = {f.path for f in client.list_artifacts(number)}
    assert first.links["run"] == f"experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    found = {d.dataset.name: d for d in run.inputs.dataset_inputs}
    assert found["train"].dataset.digest == md5
    assert {t.key: t.value for t in found["train"].tags} == {"mlflow.data.context": "training", "digest.dvc.md5": md5}
    assert "digest.sha256" in {t.key for t in found["test"].tags}  # dvc.lock speaks of other bytes
    assert run.data.params["train.retriever.kind"] == "ease" and run.data.params["split.kind"] == "global_time"
    assert run.data.metrics["model/all/ndcg_at_3"] == 0.5
    assert {"report.html", "model_card.md"} <= files


def test_a_version_is_judged_once_when_it_is_registered(paths, params, world, monkeypatch):
    bundle.run(params, paths)
    report = register.run(params, paths)
    assert report.counts == {"version": 1, "created": 1, "passed": 1}
    row = report.table[0]
    assert (row["version"], row["gate"], row["against"], row["metric"]) == (1, "passed", "popularity", "ndcg@3")
    assert row["difference"] == pytest.approx(row["challenger"] - row["opponent"], abs=1e-5) and row["p"] < 0.05
    assert report.notes[1].startswith("gate: passed: ndcg@3 ") and "of popularity" in report.notes[1]
    tags = version_tags(paths, 1)
    assert (tags["gate"], tags["gate_p"]) == ("passed", f"{row['p']:.4f}") and tags["gate_metric"] in report.notes[1]
    with tracking.client(paths.home) as (client, _):
        version = client.get_model_version("fusionrec", "1")
        assert "champion" not in version.aliases
        assert version.description.startswith(
            "Gate: passed: the alias champion may be moved here while there is no other"
        )
        assert "| warm | " in version.description
        assert f"/runs/{version.run_id}/artifacts/report.html)" in version.description
        assert "`fusionrec guard`" in client.get_registered_model("fusionrec").description

    with monkeypatch.context() as patch:
        patch.setattr(judging, "judge", lambda *_: pytest.fail("a version that has its verdict is not judged again"))
        again = register.run(params, paths)
        assert again.counts == {"version": 1, "created": 0, "passed": 1} and again.table == report.table
    with monkeypatch.context() as patch:
        patch.setattr(judging, "_compare", lambda *_: pytest.fail("promote takes the verdict that is there"))
        promoted = promote.run(params, paths)
        assert promoted.table == report.table and "is champion" in promoted.notes[-1]
    told = mlflow_store.description(paths.home, mlflow_store.find(paths.home, "fusionrec", version=1))
    assert told.startswith("Gate: passed: accepted as champion 20") and "| warm | " in told

    # a second version, refused: registration is done all the same, and says why
    other(paths, world)
    bundle.run(params, paths)
    second = register.run(params, paths)
    assert (second.counts["version"], second.counts["passed"]) == (2, 0)
    assert any("not better than champion (version 1)" in note for note in second.notes)
    assert version_tags(paths, 2)["gate"] == "refused" and "not better" in version_tags(paths, 2)["gate_reason"]
    with tracking.client(paths.home) as (client, _):
        told = client.get_model_version("fusionrec", "2").description
    assert "Gate: refused: " in told and r"train.retriever.kind: popularity \(was ease\)" in told

    # other rules or other test choices: the verdict is not used again
    strict = params.model_copy(update={"registry": config.Registry()})
    with pytest.raises(GateFailed, match="not comparable"):
        promote.run(strict, paths)


def version_tags(paths, version):
    return mlflow_store.find(paths.home, "fusionrec", version=version).tags


def other(paths, world):
    """A weaker model in place of the first."""
    retriever = Popularity().build()
    retriever.fit(world.train, world.train.select([]), world.items.only())
    save_model(
        paths.model,
        retriever,
        spec={"retriever": {"kind": "popularity"}},
        label="popularity",
        modalities={},
        seed=0,
        train_end=world.trained["timestamp"].max(),
        curve=[],
    )


def test_what_cannot_be_judged_is_registered_and_says_so(paths, params):
    bundle.run(params, paths)
    (paths.splits / "test.parquet").unlink()
    report = register.run(params, paths)
    assert "passed" not in report.counts and report.notes[-1].startswith("not judged: ")
    assert version_tags(paths, 1)["gate"] == "not judged"


def test_the_unchanged_case_loads_no_torch(paths, params):
    """Seconds that every run would pay."""
    bundle.run(params, paths)
    register.run(params, paths)
    code = (
        "import sys; from pathlib import Path; from fusionrec import config; from fusionrec.paths import Paths; "
        "from fusionrec.stages import register; raw = __import__('json').loads(sys.argv[3]); "
        "report = register.run(config.parse(raw), Paths(Path(sys.argv[1]), Path(sys.argv[2]))); "
        "assert report.counts['passed'] == 1; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    raw = json.dumps(params.model_dump(mode="json"))
    done = subprocess.run(
        [sys.executable, "-c", code, str(paths.project), str(paths.home), raw], capture_output=True, text=True
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_a_comparison_page_lies_beside_a_version(paths, params, world):
    rows = [{"model": "model", "label": HOSTILE, "slice": "all", "metric": "ndcg@3", "mean": 0.5, "low": 0.4,
             "high": 0.6, "n": 67}]  # fmt: skip
    (paths.evaluation / "table.json").write_text(json.dumps(rows))
    (paths.evaluation / "tests.json").write_text(json.dumps({"main_metric": "ndcg@3", "pairs_digest": None}))
    (paths.splits / "summary.json").write_text(json.dumps({"items": len(world.items.ids)}))
    bundle.run(params, paths)
    register.run(params, paths)
    promote.run(params, paths)
    other(paths, world)
    bundle.run(params, paths)
    register.run(params, paths)
    page = mlflow_store.read_file(paths.home, mlflow_store.find(paths.home, "fusionrec", version=2), "comparison.html")
    assert (paths.home / "docs" / "comparison.html").read_bytes() == page
    assert b"version 1" in page and b"<script" not in page
    assert mlflow_store.read_file(paths.home, mlflow_store.find(paths.home, "fusionrec", version=2), "no.html") is None


def test_a_hostile_description_is_plain_text():
    verdict = {"verdict": "refused", "opponent": HOSTILE, "reasons": [HOSTILE], "slices": {HOSTILE: {
        "challenger": 0.5, "opponent": 0.25, "n": 7}}}  # fmt: skip
    text = description.describe(verdict, [HOSTILE] * 14, {"report": "#/x"})
    assert "<script" not in text and "](javascript" not in text and "\n# h" not in text
    assert "- and 2 more" in text and "[report](#/x)" in text
    changed = description.changes({"a": {"b": 1, "c": 2}, "n_items": 3}, {"a": {"b": 1, "d": 4}, "n_items": 5})
    assert changed == ["a.c: 2 (new)", "a.d: gone (was 4)", "n items: 3 (was 5)"]


def test_a_hostile_card_is_plain_text():
    manifest = {
        "kind": HOSTILE,
        "modalities": {HOSTILE: {"encoder": {"kind": HOSTILE}, "fingerprint": HOSTILE}},
        "seed": 0,
        "train_end": None,
    }
    about = {"bundle": "b", "model": "m", "catalogue": "c"}
    rows = [
        {
            "model": "model",
            "label": HOSTILE,
            "slice": "all",
            "metric": "ndcg@20",
            "mean": 0.25,
            "low": 0.125,
            "high": 0.5,
            "n": 7,
        }
    ]
    card = model_card(manifest, about, name="x", rows=rows, sizes={HOSTILE: HOSTILE}, protocol={HOSTILE: 1})
    assert "<script" not in card and "](javascript" not in card and "\n# h" not in card
    assert "| 0.2500 | 0.1250 to 0.5000 | 7 |" in card
    assert all(line.count("|") - line.count("\\|") == 7 for line in card.splitlines() if line.startswith("|"))
    assert inert("名字 a_b") == "名字 a\\_b"


def count_versions(server):
    found = server.call("model-versions/search?filter=name%3D%27fusionrec%27", "GET")
    return len(found.get("model_versions", []))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_server_that_dies_while_it_is_written_to(server, paths, params, monkeypatch):
    """Stopped (not closed: the worst case) in the middle of the upload, then before judging, then before the start."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)  # the fixture home takes it away
    bundle.run(params, paths)
    before = digests(paths.bundle)
    whole = registering.log_run

    def cut_off(client, run_id, entry):
        whole(client, run_id, entry)
        server.signal(signal.SIGSTOP)

    monkeypatch.setattr(registering, "log_run", cut_off)
    assert_unavailable(params, paths)
    server.signal(signal.SIGCONT)
    monkeypatch.setattr(registering, "log_run", whole)
    assert count_versions(server) == 0 and digests(paths.bundle) == before

    judge = judging.judge

    def stopped(*arguments):
        server.signal(signal.SIGSTOP)
        return judge(*arguments)

    monkeypatch.setattr(judging, "judge", stopped)
    assert_unavailable(params, paths)
    server.signal(signal.SIGCONT)
    monkeypatch.setattr(judging, "judge", judge)
    assert count_versions(server) == 1 and "gate" not in server.tags("fusionrec", 1)

    done = register.run(params, paths)  # what is missing is made up for
    assert (done.counts["created"], done.counts["passed"]) == (0, 1) and server.tags("fusionrec", 1)["gate"] == "passed"
    assert done.links["version"] == f"{server.uri}/#/models/fusionrec/versions/1"
    assert done.links["run"].startswith(f"{server.uri}/#/experiments/")
    promote.run(params, paths)
    assert server.champion("fusionrec") == 1 and os.environ["MLFLOW_TRACKING_URI"] == server.uri
    experiment = server.call("experiments/get-by-name?experiment_name=fusionrec", "GET")["experiment"]["experiment_id"]
    runs = server.call("runs/search", experiment_ids=[experiment])["runs"]
    assert sorted(run["info"]["status"] for run in runs) == ["FINISHED", "KILLED"]

    server.signal(signal.SIGSTOP)
    assert_unavailable(params, paths)


def assert_unavailable(params, paths):
    start = time.monotonic()
    with pytest.raises(Unavailable, match="nothing is lost") as caught:
        register.run(params, paths)
    assert time.monotonic() - start < 60 and caught.value.exit_code == 69
