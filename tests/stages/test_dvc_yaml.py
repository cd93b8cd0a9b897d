"""dvc.yaml says what STAGES says, names every code file that a stage really runs through, and hands no parameter to a
shell."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from fusionrec.kinds import members
from fusionrec.ranking import AnyRanker
from fusionrec.ranking.heads import AnyHead
from fusionrec.ranking.rerankers import AnyReranker
from fusionrec.recommenders import AnyRetriever
from fusionrec.stages import STAGES

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
# What reads and checks, or only names things; and the registries, where a new component adds its line.
NOT_CODE = {"fusionrec/config.py", "fusionrec/errors.py", "fusionrec/kinds.py", "fusionrec/paths.py"}
# Readers of a contract's files: listed, but what made those files is the business of the stage that writes them.
READERS = {
    "fusionrec/data/tables.py": "ingest",
    "fusionrec/data/split.py": "split",
    "fusionrec/data/outcomes.py": "split",
    "fusionrec/embeddings/base.py": "embed",
}
PACKAGES_OF_KINDS = (
    "data/sources", "encoders", "fusion", "modalities", "ranking", "ranking/heads", "ranking/rerankers", "recommenders",
)  # fmt: skip


def definition(name: str) -> dict[str, Any]:
    found = PIPELINE["stages"][name]
    return found.get("do", found)  # type: ignore[no-any-return]


def template(text: str) -> str:
    for ours, theirs in (("{root}", "${source.root}"), ("{modality}", "${key}")):
        text = text.replace(ours, theirs)
    return text


def code(name: str) -> list[str]:
    return [d for d in definition(name)["deps"] if d.startswith("src/")]


def imported(file: Path) -> set[Path]:
    """Files of the package that ``file`` imports, lazily too, but not those of type annotations or of registries."""
    found: set[Path] = set()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    skipped = {
        id(inner) for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) for inner in ast.walk(node)
    }  # fmt: skip
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            path = (SOURCE / name.replace(".", "/")).with_suffix(".py")
            if name.startswith("fusionrec.") and path.is_file() and path.relative_to(SOURCE).as_posix() not in NOT_CODE:
                found.add(path)
    return found


def reached(start: set[Path], stage: str) -> set[Path]:
    """Everything that runs below these files in a stage."""
    found, queue = set(start), list(start)
    while queue:
        file = queue.pop()
        if READERS.get(file.relative_to(SOURCE).as_posix(), stage) != stage:
            continue
        new = imported(file) - found
        found |= new
        queue += new
    return found


def is_kind(file: Path) -> bool:
    """Whether a file is a component that params.yaml chooses."""
    text = file.read_text(encoding="utf-8")
    return f'kind: Literal["{file.stem}"]' in text and any(str(file.parent).endswith(p) for p in PACKAGES_OF_KINDS)


def test_the_stages_are_the_same_in_the_same_order() -> None:
    assert list(PIPELINE["stages"]) == list(STAGES)
    assert {name for name, stage in STAGES.items() if stage.per_modality} == {
        name for name, found in PIPELINE["stages"].items() if "foreach" in found
    }


@pytest.mark.parametrize("name", STAGES)
def test_params_deps_and_outs_are_the_same(name: str) -> None:
    found, stage = definition(name), STAGES[name]
    assert found["params"] == [template(p) for p in stage.params]
    assert found["outs"] == [template(o) for o in stage.outs]
    data = [d for d in found["deps"] if not d.startswith("src/") and d != "requirements.lock"]
    assert data == [template(d) for d in stage.deps]
    assert "requirements.lock" in found["deps"]
    assert len(set(found["deps"])) == len(found["deps"])


@pytest.mark.parametrize("name", STAGES)
def test_no_parameter_is_part_of_a_command(name: str) -> None:
    assert definition(name)["cmd"] == f"python -m fusionrec run {name}"


@pytest.mark.parametrize("name", STAGES)
def test_every_code_file_a_stage_runs_through_is_a_dependency(name: str) -> None:
    plain = {ROOT / d for d in code(name) if "$" not in d}
    needed = reached({SOURCE / "fusionrec" / "stages" / f"{name}.py"}, name)
    missing = {p for p in reached(needed | plain, name) - plain if not is_kind(p)}
    assert not missing, f"add to {name} in dvc.yaml: {sorted(p.relative_to(ROOT).as_posix() for p in missing)}"


@pytest.mark.parametrize("name", STAGES)
def test_every_code_dependency_exists_and_is_used(name: str) -> None:
    kinds: set[Path] = set()
    for dependency in code(name):
        if "$" in dependency:
            folder = ROOT / dependency.partition("$")[0]
            assert folder.is_dir(), dependency
            kinds |= {p for p in folder.glob("*.py") if is_kind(p)}
    listed = {ROOT / d for d in code(name) if "$" not in d}
    kinds |= {p for p in listed if p.is_file() and is_kind(p)}  # chosen in a list or an inner section
    assert all(p.is_file() for p in listed), sorted(str(p) for p in listed if not p.is_file())
    used = reached({SOURCE / "fusionrec" / "stages" / f"{name}.py"} | kinds, name)
    assert listed <= used, f"{name} does not use {sorted(p.relative_to(ROOT).as_posix() for p in listed - used)}"


@pytest.mark.parametrize("name", ["learn", "train", "rank"])
def test_training_knows_no_test_data(name: str) -> None:
    assert not [d for d in definition(name)["deps"] if "test" in d or d in ("data/splits", "data", "data/tables")]


def test_registries_are_no_dependency_so_that_a_new_component_reruns_nothing() -> None:
    for name in STAGES:
        assert not [d for d in code(name) if d.endswith("__init__.py") or not d.endswith(".py")]


@pytest.mark.parametrize(
    ("name", "unions"),
    [
        ("train", (AnyRetriever,)),
        ("rank", (AnyRetriever, AnyRanker, AnyHead)),
        ("evaluate", (AnyRetriever, AnyRanker, AnyHead, AnyReranker)),
    ],
)
def test_every_kind_that_a_list_or_an_inner_section_can_name_is_listed(name: str, unions: tuple[Any, ...]) -> None:
    """Parts of a blend, what generates for whom, baselines and heads: a template cannot walk those."""
    files = {Path(inspect.getfile(spec)).relative_to(ROOT).as_posix() for union in unions for spec in members(union)}
    assert len(files) > len(unions)
    absent = sorted(files - {*code(name)})
    assert not absent, f"add to {name} in dvc.yaml: {absent}; a change of one would leave {name} as it is"
