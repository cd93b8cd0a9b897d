"""benchmarks/parity.py: what was trained is used again for the same settings and code, and for no others."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import parity
import pytest
from scipy import stats

from fusionrec.studies import benchmark, protocol
from tests.studies import folders

CURVE = [[0.7, 0.2], [0.6, 0.3], [0.5, 0.5], [0.4, 0.4]]
FOUND = {"valid": 0.5, "recall@20": 0.25, "ndcg@20": 0.125, "epochs": 4, "seconds": 1.5, "curve": CURVE}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for file in ("models/vbpr.py", "configs/model/VBPR.yaml"):
        (tmp_path / "mmrec" / "src" / file).parent.mkdir(parents=True)
        (tmp_path / "mmrec" / "src" / file).write_text("reg_weight: [0.1]")
    return tmp_path / "mmrec"


def test_a_training_of_the_reference_is_kept_for_its_settings_seed_and_code(
    tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[dict[str, Any]] = []

    def run(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        started.append(json.loads(command[-1]))
        return subprocess.CompletedProcess(command, 0, f"noise\n{json.dumps(FOUND)}\n", "")

    monkeypatch.setattr(parity.subprocess, "run", run)
    place = tmp_path / "tiktok"

    def ask(seed: int = 0) -> dict[str, Any]:
        return parity.theirs(checkout, place, "vbpr", seed, tmp_path / "kept")

    assert ask() == ask() == FOUND and len(started) == 1 and started[0]["settings"] == {"reg_weight": 0.01}
    ask(seed=1)
    assert [job["seed"] for job in started] == [0, 1]
    monkeypatch.setitem(parity.MODELS, "vbpr", ("VBPR", {"reg_weight": 0.1}, {"reg": 0.1}))
    ask()
    assert started[2]["settings"] == {"reg_weight": 0.1}
    (checkout / "src" / "configs" / "model" / "VBPR.yaml").write_text("reg_weight: [0.2]")
    ask()
    assert len(started) == 4 and len(list((tmp_path / "kept").iterdir())) == 4


def test_it_waits_for_no_other_benchmark_on_the_same_units(
    tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = folders.write(tmp_path / "tiktok")
    monkeypatch.setattr(parity, "folder", lambda name: place)
    monkeypatch.setattr(parity, "UNITS", tmp_path / "units")
    state = tmp_path / "units" / protocol.load(place).digest[:16]
    with benchmark.alone(state):
        assert parity.main(["--reference", str(checkout), "--models", "vbpr"]) == 75
    assert "another process computes" in capsys.readouterr().err


def test_both_sides_stop_after_the_same_epoch() -> None:
    for label in parity.MODELS:
        training = parity.contestant(label).spec.training  # type: ignore[attr-defined]
        assert training.patience == 21 and training.epochs == 1000
    assert parity.contestant("mgcn").spec.training.decay < 1  # type: ignore[attr-defined]


def test_one_row_tells_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = [{**FOUND, "recall@20": 0.3}, {**FOUND, "recall@20": 0.2}]
    row = parity.row("vbpr", ours, [FOUND, {**FOUND, "recall@20": 0.15}])
    assert row["curves"] == parity.curves(ours, [FOUND, FOUND])
    assert row["ours"]["seeds"] == [0.3, 0.2] and row["ours"]["recall@20"] == 0.25
    assert row["recall@20 relative"] == 0.25 and row["ndcg@20 relative"] == 0.0
    low, high = row["recall@20 interval"]
    assert low < 0.25 < high and parity.interval([0.2], [0.1, 0.3]) is None
    a, b = [0.3, 0.2, 0.25], [0.2, 0.15, 0.22]
    u, v = np.var(a, ddof=1) / 3, np.var(b, ddof=1) / 3
    half = stats.t.ppf(0.975, 2 * (u + v) ** 2 / (u**2 + v**2)) * (u + v) ** 0.5
    expected = (np.mean(a) - np.mean(b) + np.array([-half, half])) / np.mean(b)
    np.testing.assert_allclose(parity.interval(a, b), expected, atol=1e-4)


def test_curves_are_compared_as_far_as_every_run_goes() -> None:
    """Of three epochs that all reached, the later two: ours .4 and .45, theirs .5 and .25."""
    ours = [{**FOUND, "curve": CURVE[:3]}, {**FOUND, "curve": [[1, 1], [0.6, 0.4], [0.5, 0.5], [9, 9]]}]
    theirs = [
        {**FOUND, "curve": [[1, 1], [0.3, 0.4], [0.3, 0.6]]},
        {**FOUND, "curve": [[1, 1], [0.3, 0.2], [0.3, 0.3]]},
    ]
    found = parity.curves(ours, theirs)
    assert found["epochs"] == [2, 3] and found["loss relative"] == round(0.55 / 0.3 - 1, 4)
    assert found["valid relative"] == round(0.425 / 0.375 - 1, 4)
    assert found["valid interval"] == parity.interval([0.4, 0.45], [0.5, 0.25])
    assert parity.curves(ours[:1], theirs[:1])["valid interval"] is None


@pytest.mark.parametrize("arguments", [["--models", "vbrp"], ["--models", "vbpr", "--reference", "nowhere"]])
def test_mistakes_are_said_before_anything_is_trained(checkout: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parity.main(["--reference", str(checkout), *arguments])
    assert stop.value.code == 2
