"""The command line: exit codes, hints, and what the commands do on a toy project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from fusionrec import cli
from fusionrec.paths import Paths
from tests.stages import toy


@pytest.fixture(autouse=True)
def quiet_process(monkeypatch: pytest.MonkeyPatch, umask: None) -> None:
    """Commands run in this process; what they set must not outlive the test."""
    import signal

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    before = dict(os.environ)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    paths = toy.make(tmp_path / "p")
    shutil.copytree(toy.ROOT / "recipes", paths.project / "recipes")
    monkeypatch.chdir(paths.project)
    return paths


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(list(arguments))
    out, err = capsys.readouterr()
    return code, " ".join(out.split()), (err.strip().splitlines() or [""])[-1]


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import sys; from fusionrec.cli import main; code = main(['--help']);"
        "heavy = {'torch', 'prefect', 'mlflow', 'dvc', 'polars', 'great_expectations', 'numpy', 'pandas'};"
        "heavy &= set(sys.modules);"
        "print('HEAVY', heavy); sys.exit(code)"
    )
    done = toy.run(Paths(tmp_path, tmp_path / ".fusionrec"), "-c", program)
    assert done.returncode == 0 and "HEAVY set()" in done.stdout, done.stdout[-300:]


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["rnu"], 2, "did you mean 'run'?"), (["run", "trian"], 2, "did you mean 'train'?"),
        (["confg"], 2, "did you mean 'config'?"), (["config", "shwo"], 2, "did you mean 'show'?"),
        (["run"], 2, "Missing argument"),
        (["plan", "--no-such"], 2, "No such option"), (["use", "moveis"], 2, "did you mean 'movies'?"),
        (["use", "../params"], 2, "no recipe"), (["adopt", "../x"], 2, "a run id"), (["adopt", "nothing"], 2, "no run"),
        (["demo-data", "--strength", "text"], 2, "NAME=NUMBER"), (["table"], 78, "fusionrec repro"),
        (["demo-batch", "darker_pics"], 2, "did you mean 'dark"), (["demo-batch", "none"], 78, "fusionrec demo-data"),
        (["check", "no-such-folder"], 3, "not a folder"), (["register"], 3, "dvc repro"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else None,
)  # fmt: skip
def test_mistakes_end_in_their_code_with_a_hint(
    project: Paths, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    found = call(capsys, *arguments)
    assert found[0] == code and words in found[2] and found[2].startswith(f"fusionrec: exit {code} ("), found


@pytest.mark.parametrize(
    "error, code, words",
    [
        (KeyboardInterrupt(), 130, "fusionrec: exit 130 (interrupted): "),
        (typer.Abort(), 130, "fusionrec: exit 130 (interrupted): "),
        (EOFError("no data left in file"), 1, "fusionrec: exit 1 (bug): EOFError: no data left in file"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_typer_would_swallow_ends_in_its_line(
    project: Paths,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Any,
    code: int,
    words: str,
) -> None:
    def examine(paths: Paths) -> None:
        raise error

    monkeypatch.setattr("fusionrec.stages.doctor.examine", examine)
    found = call(capsys, "doctor")
    assert found[0] == code and found[2].startswith(words), found


def test_a_pipe_that_nobody_reads_ends_quietly(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "fusionrec", "--help"]
    done = subprocess.run(command, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_outside_a_project_the_message_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, last = call(capsys, "plan")
    assert code == 2 and "no params.yaml" in last


def test_a_recipe_with_an_unset_variable_is_refused_with_what_to_set(
    project: Paths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FUSIONREC_MOVIES", raising=False)
    before = (project.project / "params.yaml").read_bytes()
    code, _, last = call(capsys, "use", "movies")
    assert code == 78 and "export FUSIONREC_MOVIES=" in last
    assert (project.project / "params.yaml").read_bytes() == before


def test_use_writes_an_absolute_root_that_dvc_can_read(
    project: Paths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSIONREC_MOVIES", "raw/log")
    (project.embeddings / "text").mkdir(parents=True)
    (project.embeddings / "sound").mkdir()
    assert call(capsys, "use", "movies")[0] == 0
    written = yaml.safe_load((project.project / "params.yaml").read_text())
    assert written["source"]["root"] == str(project.project / "raw" / "log")
    assert [p.name for p in project.embeddings.iterdir()] == ["text"], "matrices of other recipes go"
    monkeypatch.setenv("FUSIONREC_MOVIES", "raw/no-such")
    assert call(capsys, "use", "movies")[0] == 78


@pytest.mark.parametrize(
    "text, words",
    [
        ("a: {b\n", "recipes/mine.yaml is not valid YAML: line "),
        ("- a\n", "recipes/mine.yaml must be a mapping of sections, found list"),
        ("source:\n", "recipes/mine.yaml has "),
        ("source: [a]\n", "recipes/mine.yaml has "),
        ("train: {}\ntrain: {}\n", "line 2, column 1: found the key 'train' twice"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_told(
    project: Paths, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    (project.project / "recipes").mkdir(exist_ok=True)
    (project.project / "recipes" / "mine.yaml").write_text(text)
    before = (project.project / "params.yaml").read_bytes()
    for command in (("use", "mine"), ("repro", "--recipe", "mine")):
        code = cli.main([*command])
        error = capsys.readouterr().err
        assert code == 78 and words in error
    assert (project.project / "params.yaml").read_bytes() == before


@pytest.mark.parametrize("name", ["atelier", "movies", "interactions", "vectors"])
def test_every_recipe_is_valid(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for variable in ("FUSIONREC_MOVIES", "FUSIONREC_LOG", "FUSIONREC_VECTORS"):
        monkeypatch.setenv(variable, str(toy.ROOT))
    assert call(capsys, "config", "check", str(toy.ROOT / "recipes" / f"{name}.yaml"))[0] == 0


def test_the_demo_recipe_is_the_default() -> None:
    ours, recipe = (yaml.safe_load((toy.ROOT / f).read_text()) for f in ("params.yaml", "recipes/atelier.yaml"))
    assert ours == recipe


def test_config_errors_come_all_at_once(project: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    (project.project / "params.yaml").write_text(toy.PARAMS.replace("seed: 0", "seed: -1\n  sedd: 2"))
    code = cli.main(["config", "check"])
    error = capsys.readouterr().err
    assert code == 78 and "train.seed" in error and "did you mean 'seed'?" in error and "2 problem(s)" in error
    assert (
        error.strip()
        .splitlines()[-1]
        .startswith("fusionrec: exit 78 (configuration): params.yaml has 2 problem(s): train.")
    )


def test_config_show_tells_defaults_and_no_secret(project: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    from fusionrec.stages.doctor import without_secrets

    code, out, _ = call(capsys, "config", "show")
    assert code == 0 and "main_metric: ndcg" in out
    hidden = without_secrets({"url": "postgresql://me:pw@host/db", "api_key": "k", "n": [1, {"password": "x"}]})
    assert hidden == {"url": "postgresql://(hidden)@host/db", "api_key": "(hidden)", "n": [1, {"password": "(hidden)"}]}


def test_repro_runs_what_is_stale_and_passes_the_stages_code_on(project: Paths) -> None:
    toy.behave(project, train={"raise": "DataRejected", "message": "no rows"})
    done = toy.run(project, "-m", "fusionrec", "repro")
    assert done.returncode == 3
    assert done.stderr.strip().splitlines()[-1] == "fusionrec: exit 3 (data rejected): no rows"
    toy.behave(project)
    done = toy.run(project, "-m", "fusionrec", "repro")  # the toy has no bundle: repro gets as far as register
    assert done.returncode == 3 and "data/bundle is missing" in done.stderr
    assert toy.started(project) == ["ingest", "train", "train"]


def test_repro_with_other_parameters_is_isolated_and_a_bad_one_runs_nothing(project: Paths) -> None:
    before = (project.project / "params.yaml").read_bytes()
    done = toy.run(project, "-m", "fusionrec", "repro", "--set", "train.seed=5")  # no bundle: as far as register
    assert done.returncode == 3 and "this run is isolated" in done.stdout, done.stderr
    assert (project.project / "params.yaml").read_bytes() == before and not (project.data / "second").exists()
    (kept,) = (project.home / "runs").iterdir()
    adopted = toy.run(project, "-m", "fusionrec", "adopt", kept.name)
    assert adopted.returncode == 78 and "did not finish" in adopted.stderr
    assert yaml.safe_load((kept / "params.yaml").read_text())["train"]["seed"] == 5
    assert not any((project.home / "isolated").iterdir())
    for setting in ("train.sed=5", "train.seed"):
        done = toy.run(project, "-m", "fusionrec", "repro", "--set", setting)
        assert done.returncode == 78, done.stderr
    done = toy.run(project, "-m", "fusionrec", "repro", "--recipe", "moveis")
    assert done.returncode == 2 and "did you mean 'movies'?" in done.stderr
    assert toy.started(project) == ["ingest", "train"]


def test_verify_tells_of_a_merge_that_was_left_and_of_a_broken_configuration(
    project: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.dvc(project, "repro")
    lock = project.project / "dvc.lock"
    lock.write_text("<<<<<<< HEAD\n" + lock.read_text() + ">>>>>>> other\n")
    code, _, last = call(capsys, "verify")
    assert code == 78 and "dvc.lock is no file that DVC wrote (line 2" in last and "take one side of a merge" in last
    (project.project / ".dvc" / "config").write_text("[core\n")
    code, _, last = call(capsys, "verify")
    assert code == 78 and "mend .dvc/config or .dvc/config.local" in last


def test_verify_names_a_flipped_bit_that_dvc_does_not_see(project: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    toy.dvc(project, "repro")
    code, out, _ = call(capsys, "verify")
    assert code == 0 and "2 objects" in out
    objects = [p for p in (project.project / ".dvc" / "cache" / "files").rglob("*") if p.is_file()]
    victim = next(p for p in objects if p.read_bytes() == b"a\nb\nc\n")
    victim.chmod(0o600)
    victim.write_bytes(b"a\nb\nb\n")
    code, _, last = call(capsys, "verify")
    assert code == 78 and "data/first" in last and victim.name in last
    victim.unlink()
    code, out, _ = call(capsys, "verify")
    assert code == 0 and "not in the cache: data/first" in out


def test_plan_says_rows_and_what_is_stale_before_a_run(
    project: Paths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    root = project.project / "raw" / "log"
    (root / "items.csv").write_text("item_id\n" + "".join(f"i{n}\n" for n in range(7)))
    (root / "interactions.csv").write_text(
        "user_id,item_id,event\n" + "".join(f"u{n},i{n % 7},click\n" for n in range(11))
    )
    code, out, _ = call(capsys, "plan")
    assert code == 0 and "rows: items 7, interactions 11" in out
    assert "never ran" in out and "modified" not in out and "after ingest" in out and "minutes" in out
    toy.dvc(project, "repro")
    code, out, _ = call(capsys, "plan")
    assert code == 0 and out.count("up to date") == 2 and "last run" in out and "about 0.0 minutes" in out
    (root / "log.csv").write_text("other\n")
    assert "raw/log modified" in call(capsys, "plan")[1]


def test_a_batch_is_made_beside_a_run_and_only_one_at_a_time_in_a_place(
    project: Paths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from fusionrec.demo import batches
    from fusionrec.stages.lock import folder_lock, project_lock

    def made(out: Path, *_: object, **__: object) -> dict[str, int]:
        out.mkdir()
        return {"items": 20}

    monkeypatch.setattr(batches, "write", made)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with project_lock(project.home, "flow run", 0), folder_lock(project.home, project.data / "batches/none", "he"):
            held.set()
            done.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    try:
        assert held.wait(30)
        code, _, last = call(capsys, "demo-batch", "none")
        assert code == 75 and f"he (pid {os.getpid()}) is at work on" in last and "data/batches/none" in last
        code, out, _ = call(capsys, "demo-batch", "none", "--out", "data/batches/second")
        assert code == 0 and "wrote data/batches/second (20 items)" in out, "the run holding the project is no matter"
    finally:
        done.set()
        other.join()
    assert call(capsys, "demo-batch", "none")[0] == 0


def test_doctor_finds_what_is_missing(
    project: Paths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shutil.rmtree(project.project / "raw")
    project.home.chmod(0o755)
    (project.home / "isolated" / "dead").mkdir(parents=True)
    from fusionrec.stages.doctor import examine

    found = {(f.level, f.topic) for f in examine(project)}
    assert {("fail", "privacy"), ("fail", "source"), ("warn", "bundle"), ("warn", "isolated"), ("ok", "lock")} <= found
    code, out, last = call(capsys, "doctor")
    assert code == 78 and "no bundle yet" in out
    assert last.startswith("fusionrec: exit 78 (configuration): ") and " checks failed: " in last


def test_doctor_says_what_to_do_where_dvc_is_not_set_up(project: Paths) -> None:
    from fusionrec.stages.doctor import examine

    shutil.rmtree(project.project / ".dvc")
    found = {(f.level, f.topic): f.text for f in examine(project, ("private", "lock"))}
    assert "run `dvc init --no-scm`" in found["fail", "dvc"] and ("ok", "lock") in found


def test_doctor_says_that_dvcs_config_is_broken(project: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    (project.project / ".dvc" / "config").write_text("[core\n")
    code, out, last = call(capsys, "doctor")
    assert code == 78 and "Invalid line ('[core')" in out.replace("\n", " ") and "mend .dvc/config" in last


def test_doctor_tells_media_that_are_not_used(project: Paths) -> None:
    from fusionrec.stages import doctor

    project.gate.mkdir(parents=True)
    summary = project.gate / "summary.json"
    summary.write_text(json.dumps({"codes": {"cells": {"items": {"truncated": 812, "bad_number": 3}}}}))
    for checks in (doctor.ALL, doctor.LIGHT):
        found = [f for f in doctor.examine(project, checks) if f.topic == "media"]
        text = "set aside by the gate: truncated 812; see data/gate/quarantine.csv"
        assert found == [doctor.Finding("warn", "media", text)]
    summary.write_text("torn")
    folder = project.embeddings / "image"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    (folder / "failed.parquet").write_text("torn")
    for finding, run in zip(doctor.examine(project, ("media",)), ("validate", "embed@image"), strict=True):
        assert finding.level == "fail" and f"is damaged: run `fusionrec run {run}`" in finding.text


def test_dvcs_site_cache_is_private_for_a_bare_dvc_too(project: Paths) -> None:
    environment = {k: v for k, v in toy.environment(project).items() if k != "DVC_SITE_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", "from dvc.repo import Repo; print(Repo('.').site_cache_dir)"],
        cwd=project.project,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()).is_relative_to(project.home)
    assert project.home.stat().st_mode & 0o777 == 0o700
