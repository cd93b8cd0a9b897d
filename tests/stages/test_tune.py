"""tune: chooses by validation alone, keeps its trials, tells MLflow once, writes params.yaml with its comments."""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fusionrec import config
from fusionrec.config import Params
from fusionrec.errors import ConfigError, DataRejected
from fusionrec.paths import Paths
from fusionrec.recommenders.blend import Blend
from fusionrec.recommenders.bpr import BPR
from fusionrec.recommenders.content import Content
from fusionrec.recommenders.item_knn import ItemKNN
from fusionrec.recommenders.training import Training
from fusionrec.registry import mlflow_store, tracking
from fusionrec.stages import params_file, train, tune
from fusionrec.studies.search import Trial
from fusionrec.types import Report
from tests.evaluation.conftest import World, write_project

SRC = Path(tune.__file__).resolve().parents[1]
DOWN = "http://127.0.0.1:9"
Make = Callable[..., tuple[Params, Paths]]
BLEND = Blend(parts=(ItemKNN(neighbours=7), Content(width=16)))


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Params, Path]:
    folder = tmp_path_factory.mktemp("tune") / "p"
    params, _ = write_project(folder, World(n_users=61, n_items=47, n_cold=9, seed=3))
    return params, folder


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose MLflow database exists and holds nothing."""
    home = tmp_path_factory.mktemp("mlflow-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert mlflow_store.find(home, "fusionrec", version=1) is None
    return home


@pytest.fixture
def project(template: tuple[Params, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """``project(spec, name)``: a copy of the small project with this retriever; MLflow is down."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DOWN)

    def make(spec: Any = BLEND, name: str = "p") -> tuple[Params, Paths]:
        params, folder = template
        shutil.copytree(folder, tmp_path / name)
        wanted = params.model_copy(update={"train": params.train.model_copy(update={"retriever": spec})})
        return wanted, Paths(tmp_path / name, tmp_path / name / ".fusionrec")

    return make


def told(report: Report) -> list[dict[str, Any]]:
    """The table but for the seconds."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in report.table]


def test_the_best_on_validation_is_found_and_told(project: Make) -> None:
    params, paths = project()
    seen: list[Trial] = []
    report = tune.run(params, paths, trials=5, watch=seen.append)
    values = [row["ndcg@20"] for row in report.table]
    assert len(values) == 5 and report.counts["trials"] == 5 and report.counts["failed"] == 0
    assert report.table[0]["parts.0.neighbours"] == "7" and report.table[0]["parts.1.width"] == "16"
    best = max(range(5), key=lambda n: (values[n], -n))
    assert [row[""] for row in report.table] == ["best" if n == best else "done" for n in range(5)]
    assert report.notes[0].startswith(f"best on validation: trial {best} with ndcg@20 {values[best]:.4f}")
    assert report.links["trials"] == ".fusionrec/studies/tune-blend.sqlite"
    assert [t.state for t in seen] == ["running", "done"] * 5
    assert all(len(t.curve) == 1 for t in seen[1::2]), "what a blend tells of its weights"


def test_a_value_is_what_the_train_stage_would_measure(project: Make) -> None:
    from fusionrec.data import split
    from fusionrec.embeddings import base as embeddings
    from fusionrec.recommenders.validation import validation_metric

    params, paths = project(BPR(dim=11, training=Training(epochs=3, batch=64, lr=0.05)))
    report = tune.run(params, paths, trials=1)
    data = split.load(paths, ("train", "valid"))
    model = params.train.retriever.build(params.train.fusion)
    model.fit(data.train, data.valid, embeddings.load(paths, tuple(params.modalities)), seed=params.train.seed)
    assert report.counts["best valid ndcg@20"] == round(validation_metric(model, data.train, data.valid), 6) > 0


def test_without_the_test_split_search_and_training_give_the_same_bits(project: Make) -> None:
    """E6: one project has its test split, one has none, one has another in its place."""
    spec = Blend(parts=(BPR(dim=8, training=Training(epochs=4, batch=64, lr=0.05)), Content(width=16)))
    outcomes, models = [], []
    for name in ("whole", "deleted", "other"):
        params, paths = project(spec, name)
        alone = params.train.model_copy(update={"singles": False, "baselines": ()})
        params = params.model_copy(update={"train": alone})
        file = paths.splits / "test.parquet"
        if name == "deleted":
            file.unlink()
        elif name == "other":
            pl.read_parquet(paths.splits / "valid.parquet").write_parquet(file)
        seen: list[Trial] = []
        report = tune.run(params, paths, trials=4, watch=seen.append)
        outcomes.append((told(report), [(t.point, t.value, t.curve) for t in seen if t.state == "done"]))
        train.run(params, paths)
        models.append(hashlib.sha256((paths.model / "model.safetensors").read_bytes()).hexdigest())
    assert outcomes[0] == outcomes[1] == outcomes[2] and len(outcomes[0][1]) == 4
    assert models[0] == models[1] == models[2]


READERS = ("studies/__init__.py", "studies/space.py", "studies/search.py", "studies/file.py", "stages/tune.py")


def reads_another_split(source: str) -> list[str]:
    """What in a module could open more than train and valid: the names, the attribute, other loads, other readers."""
    tree = ast.parse(source)
    texts = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
            if "test" in node.value.split("/")[-1].lower() and "latest" not in node.value:
                found.append(f"{node.lineno}: {node.value!r}")
        elif isinstance(node, ast.Attribute) and node.attr in (
            "test",
            "bundle",
            "evaluation",
            "requests",
            "iterdir",
            "glob",
        ):
            found.append(f"{node.lineno}: .{node.attr}")
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [getattr(node, "module", "") or "", *(a.name for a in node.names)]
            if {"polars", "pyarrow", "pandas", "fusionrec.evaluation", "requests"} & set(names):
                found.append(f"{node.lineno}: imports {names}")
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "split.load":
            if [ast.unparse(a) for a in node.args[1:]] != ["('train', 'valid')"] or node.keywords:
                found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


def test_the_code_of_a_search_cannot_name_another_split() -> None:
    for file in READERS:
        assert reads_another_split((SRC / file).read_text(encoding="utf-8")) == [], file
    source = (SRC / "stages" / "tune.py").read_text(encoding="utf-8")
    assert 'split.load(paths, ("train", "valid"))' in source and tune.SPLITS == ("train", "valid")
    for snippet in (
        "split.load(paths, ('train', 'test'))", "split.load(paths, names)", "data.test", "import polars as pl",
        "x = paths.splits / 'test.parquet'", "split.load(paths)", "paths.evaluation",
        "for f in paths.splits.iterdir(): f",
    ):  # fmt: skip
        assert reads_another_split(snippet), snippet


def test_a_loaded_pair_of_splits_refuses_the_third(project: Make) -> None:
    from fusionrec.data import split

    _, paths = project()
    with pytest.raises(ValueError, match="'test' was not loaded"):
        split.load(paths, tune.SPLITS).test  # noqa: B018


def test_trials_are_kept_until_fresh_and_another_project_state_is_refused(
    project: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, paths = project()
    first = tune.run(params, paths, trials=2)
    more = tune.run(params, paths, trials=4)
    assert told(more)[1]["parts.1.width"] == told(first)[1]["parts.1.width"] and more.counts["from earlier calls"] == 2
    assert tune.run(params, paths, trials=3).counts["from earlier calls"] == 3
    with monkeypatch.context() as patch:
        patch.setattr(tune, "code_digest", lambda kinds: f"another digest of {sorted(kinds)}")
        with pytest.raises(ConfigError, match="made with other code .*fusionrec tune --fresh"):
            tune.run(params, paths, trials=4)
    changed = params.model_copy(update={"train": params.train.model_copy(update={"seed": 8})})
    with pytest.raises(ConfigError, match="made with other data and another seed .*fusionrec tune --fresh"):
        tune.run(changed, paths, trials=4)
    valid = pl.read_parquet(paths.splits / "valid.parquet")
    valid.head(40).write_parquet(paths.splits / "valid.parquet")
    with pytest.raises(ConfigError, match="made with other data: its values"):
        tune.run(params, paths, trials=4)
    again = tune.run(params, paths, trials=2, fresh=True)
    assert again.counts["from earlier calls"] == 0 and again.counts["trials"] == 2


def test_what_cannot_be_searched_is_refused_with_a_reason(project: Make) -> None:
    from fusionrec.recommenders.popularity import Popularity

    params, paths = project(Popularity(), "plain")
    with pytest.raises(ConfigError, match="popularity declares nothing to search"):
        tune.run(params, paths)
    params, paths = project(name="empty")
    pl.read_parquet(paths.splits / "valid.parquet").clear().write_parquet(paths.splits / "valid.parquet")
    with pytest.raises(DataRejected, match="nothing to choose by"):
        tune.run(params, paths)
    shutil.rmtree(paths.splits)
    with pytest.raises(DataRejected, match="run the stage split first"):
        tune.run(params, paths)


def test_a_failed_trial_is_told(project: Make) -> None:
    """A learning rate that blows up is one row of the table; the search ends with the others."""

    class Wild(BPR):
        space = {"training.lr": (0.05, 1e30)}

    params, paths = project(Wild(dim=8, training=Training(epochs=3, batch=64, lr=0.05)))
    report = tune.run(params, paths, trials=9)
    assert [row[""] for row in report.table] == ["best", "failed"] and report.counts["failed"] == 1
    assert "ValueError: the loss is" in report.notes[1] and "whole space: it has 2 points" in report.notes[2]


def children(paths: Paths) -> list[Any]:
    with tracking.client(paths.home) as (client, _):
        place = client.get_experiment_by_name("fusionrec").experiment_id
        return sorted(client.search_runs([place]), key=lambda r: int(r.data.tags.get("trial", "-1")))


def test_mlflow_has_each_trial_once_and_one_that_is_down_loses_none(
    project: Make, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, paths = project()
    down = tune.run(params, paths, trials=2)
    assert "run" not in down.links and any("not in MLflow (MLflow at" in note for note in down.notes)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    shutil.copytree(empty_store / "mlflow", paths.home / "mlflow")
    report = tune.run(params, paths, trials=4)
    parent, *runs = children(paths)
    assert [r.data.tags["trial"] for r in runs] == ["0", "1", "2", "3"]
    assert {r.data.tags["mlflow.parentRunId"] for r in runs} == {parent.info.run_id}
    assert [round(r.data.metrics["valid_ndcg_at_20"], 4) for r in runs] == [row["ndcg@20"] for row in report.table]
    assert runs[0].data.params["parts.0.neighbours"] == "7" and parent.data.params["retriever.kind"] == "blend"
    assert parent.info.status == "FINISHED" and report.links["run"].endswith(f"/runs/{parent.info.run_id}")
    tune.run(params, paths, trials=4)
    assert len(children(paths)) == 5


PARAMS = """\
# what is searched
train:
  retriever:
    kind: blend # two parts
    parts:
      - {kind: item_knn, neighbours: 7}   # near ones
      - kind: bpr
  fusion: {kind: concat}
  baselines:
    - kind: popularity
    - kind: 'ease'
source: {kind: folder, root: raw}
split: {kind: global_time, valid_from: 71, test_from: 81}
"""


def test_chosen_parameters_go_into_the_file_and_its_comments_stay(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(PARAMS)
    second = BPR(dim=32, training=BPR().training.model_copy(update={"weight_decay": 1e-6}))
    chosen = Blend(parts=(ItemKNN(neighbours=50), second))
    params_file.write_retriever(file, chosen, ["parts.0.neighbours", "parts.1.dim", "parts.1.training.weight_decay"])
    written = file.read_text()
    assert config.load(file).train.retriever == chosen
    assert second.training.epochs == 60 and "weight_decay: 1.0e-06\n" in written  # type: ignore[attr-defined]
    kept = [line for line in PARAMS.splitlines() if "neighbours" not in line]
    assert [line for line in written.splitlines() if line in kept] == kept, written
    assert "- {kind: item_knn, neighbours: 50}" in written and "# near ones" in written
    assert len(written.splitlines()) == len(kept) + 1 + 2 + len(Training.model_fields)


def test_lists_keep_their_indentation_and_nothing_else_may_change(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    flat = (
        PARAMS.replace("    - kind: p", "  - kind: p")
        .replace("    - kind: 'e", "  - kind: 'e")
        .replace("      - ", "    - ")
    )
    file.write_text(flat)
    params_file.write_retriever(file, Blend(parts=(ItemKNN(neighbours=7), BPR(dim=32))), ["parts.1.dim"])
    assert file.read_text() == flat.replace("    - kind: bpr\n", "    - kind: bpr\n      dim: 32\n")
    before = file.read_bytes()
    with pytest.raises(ConfigError, match="set them by hand"):
        params_file.write_retriever(file, Blend(parts=(ItemKNN(neighbours=9), BPR(dim=64))), ["parts.1.dim"])
    assert file.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["params.yaml"]


def test_adopt_makes_the_best_the_projects(project: Make) -> None:
    params, paths = project()
    raw = params.model_dump(mode="json", serialize_as_any=True)
    (paths.project / "params.yaml").write_text("# ours\n" + json.dumps(raw, indent=1))  # JSON is YAML
    assert config.load(paths.project / "params.yaml").train.retriever == BLEND
    report = tune.run(params, paths, trials=12, adopt=True)
    best = next(row for row in report.table if row[""] == "best")
    found = config.load(paths.project / "params.yaml").train.retriever
    assert best["trial"] > 0, "the seed of this test's world gives a better point than the first"
    assert (
        str(found.parts[0].neighbours) == best["parts.0.neighbours"]
        and str(found.parts[1].width) == best["parts.1.width"]
    )  # type: ignore[attr-defined]
    assert (paths.project / "params.yaml").read_text().startswith("# ours\n")
    assert any("next: fusionrec repro" in note for note in report.notes)
