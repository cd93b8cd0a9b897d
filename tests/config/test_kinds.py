"""The registry rule: one file, one line, and the kind is the file's name."""

import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from fusionrec.kinds import members, union
from fusionrec.types import Spec

BASE = "from fusionrec.types import Spec\nclass ToySpec(Spec):\n    kind: str\n"
FILE = """from typing import Literal
from {package}.base import ToySpec
class {cls}(ToySpec):
    kind: Literal["{kind}"] = "{kind}"
    size: int = 1
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A package of toy components on disk: name -> file text; gives (package name, base class)."""
    serial = iter(range(1000))

    def make(**files: str) -> tuple[str, type[Spec]]:
        name = f"toykinds_{tmp_path.name.replace('-', '_')}_{next(serial)}"
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").write_text("")
        (folder / "base.py").write_text(BASE)
        for stem, text in files.items():
            (folder / f"{stem}.py").write_text(text.replace("{package}", name))
        monkeypatch.syspath_prepend(str(tmp_path))
        base = __import__(f"{name}.base", fromlist=["ToySpec"]).ToySpec
        return name, base

    yield make
    for module in [m for m in sys.modules if m.startswith("toykinds_")]:
        del sys.modules[module]


def toy(cls: str, kind: str) -> str:
    return FILE.replace("{cls}", cls).replace("{kind}", kind)


def test_the_kind_selects_the_spec(package) -> None:
    name, base = package(apple=toy("Apple", "apple"), pear=toy("Pear", "pear"))
    any_toy = union(name, base, ["apple", "pear"])
    assert [m.__name__ for m in members(any_toy)] == ["Apple", "Pear"]
    chosen = TypeAdapter(any_toy).validate_python({"kind": "pear", "size": 3})
    assert type(chosen).__name__ == "Pear" and chosen.size == 3
    with pytest.raises(ValidationError, match="union_tag_invalid"):
        TypeAdapter(any_toy).validate_python({"kind": "plum"})


def test_a_registry_of_one_works(package) -> None:
    name, base = package(apple=toy("Apple", "apple"))
    any_toy = union(name, base, ["apple"])
    assert [m.__name__ for m in members(any_toy)] == ["Apple"]
    assert TypeAdapter(any_toy).validate_python({"kind": "apple"}).size == 1
    with pytest.raises(ValidationError, match="union_tag_invalid"):
        TypeAdapter(any_toy).validate_python({"kind": "plum"})
    with pytest.raises(ValidationError, match="union_tag_not_found"):  # dvc.yaml reads the kind, so it must be written
        TypeAdapter(any_toy).validate_python({"size": 3})


NESTED = """from typing import Literal
from {package}.base import ToySpec
from fusionrec.types import Spec
class _Inner(Spec):
    epochs: int = 1
    lr: float = 0.5
    steps: tuple[int, ...] = (1,)
class {cls}(ToySpec):
    kind: Literal["{kind}"] = "{kind}"
    inner: _Inner = _Inner(epochs=7, steps=(2, 3))
"""


@pytest.mark.parametrize("names", [["apple"], ["apple", "pear"]])
def test_a_section_changes_what_it_names_and_leaves_the_components_defaults(package, names: list[str]) -> None:
    apple = NESTED.replace("{cls}", "Apple").replace("{kind}", "apple")
    name, base = package(apple=apple, pear=toy("Pear", "pear"))
    read = TypeAdapter(union(name, base, names)).validate_python
    inner = read({"kind": "apple", "inner": {"lr": 0.25}}).inner
    assert (inner.epochs, inner.lr, inner.steps) == (7, 0.25, (2, 3))
    assert read({"kind": "apple", "inner": {}}) == read({"kind": "apple"})
    assert read({"kind": "apple", "inner": type(inner)(lr=0.25)}).inner.epochs == 1, "a whole object is taken as it is"
    for wrong, where in (({"lr": "x"}, ("inner", "lr")), ({"rate": 1}, ("inner", "rate")), (3, ("inner",))):
        with pytest.raises(ValidationError) as found:
            read({"kind": "apple", "inner": wrong})
        assert [e["loc"][-len(where) :] for e in found.value.errors()] == [where]


@pytest.mark.parametrize(
    ("files", "names", "message"),
    [
        ({"apple": toy("Apple", "aple")}, ["apple"], r"kind: Literal\['apple'\]"),
        ({"apple": "x = 1\n"}, ["apple"], "expected one ToySpec, found none"),
        ({"apple": toy("A", "apple") + toy("B", "apple")}, ["apple"], r"found \['A', 'B'\]"),
        ({"apple": toy("Apple", "apple")}, ["apple", "apple"], "registered once"),
        ({}, [], "registered once, found none"),
    ],
)
def test_a_file_that_breaks_the_rule_is_refused(package, files, names, message) -> None:
    name, base = package(**files)
    with pytest.raises(TypeError, match=message):
        union(name, base, names)


def test_names_that_start_with_an_underscore_are_private(package) -> None:
    name, base = package(apple=toy("Apple", "apple") + "class _Half(ToySpec):\n    pass\n")
    assert [m.__name__ for m in members(union(name, base, ["apple"]))] == ["Apple"]
