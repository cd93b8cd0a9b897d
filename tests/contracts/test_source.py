"""What every source promises (data/sources/base.py)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusionrec.data.sources import AnySource
from fusionrec.data.sources.base import Source, SourceSpec
from fusionrec.errors import DataRejected
from fusionrec.kinds import members

SPECS: dict[str, type[SourceSpec]] = {cls.model_fields["kind"].default: cls for cls in members(AnySource)}


def _folder(project: Path) -> dict[str, Any]:
    root = project / "shop"
    root.mkdir()
    (root / "items.csv").write_text("item_id,title,colour\ni1,Cup,red\ni2,杯子,blue\n", encoding="utf-8")
    (root / "interactions.csv").write_text("user_id,item_id,event\nu1,i1,click\nu2,i2,purchase\nu1,i2,click\n")
    (root / "users.csv").write_text("user_id,region\nu1,north\nu2,south\n")
    return {"root": "shop"}


def _mmrec(project: Path) -> dict[str, Any]:
    root = project / "shop"
    root.mkdir()
    (root / "interactions.inter").write_text("userID\titemID\tx_label\n0\t0\t0\n1\t1\t0\n0\t1\t2\n")
    (root / "meta-shop.csv").write_text("itemID,title\n0,Cup\n1,杯子\n", encoding="utf-8")
    return {"root": "shop"}


# Writes a small catalogue of two items, two users and three interactions, gives the spec's keys
MAKERS: dict[str, Callable[[Path], dict[str, Any]]] = {"folder": _folder, "mmrec": _mmrec}
IDS = {"folder": ["i1", "i2"], "mmrec": ["0", "1"]}
USERS = {"folder": 2, "mmrec": None}  # rows of the table of users; a format without one has none

pytestmark = pytest.mark.parametrize("kind", sorted(SPECS))


def built(kind: str, project: Path) -> Source:
    return SPECS[kind].model_validate({"kind": kind, **MAKERS[kind](project)}).build(project)


def test_tables_carry_canonical_names_and_every_row(kind: str, tmp_path: Path) -> None:
    tables = built(kind, tmp_path).read()
    assert sorted(tables.items["item_id"].to_list()) == IDS[kind]
    assert "杯子" in tables.items["title"].to_list()
    assert {"user_id", "item_id", "event"} <= set(tables.interactions.columns)
    assert tables.interactions.height == 3
    assert tables.interactions["user_id"].n_unique() == 2
    assert (None if tables.users is None else tables.users.height) == USERS[kind]
    assert tables.queries is None
    assert tables.media_root.is_dir()


def test_reading_twice_gives_the_same_and_writes_nothing(kind: str, tmp_path: Path) -> None:
    source = built(kind, tmp_path)
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    first, second = source.read(), source.read()
    assert first.items.equals(second.items)
    assert first.interactions.equals(second.interactions)
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == before


def test_what_is_not_there_is_said_in_one_line(kind: str, tmp_path: Path) -> None:
    keys = MAKERS[kind](tmp_path)
    for path in (tmp_path / "shop").glob("interactions.*"):
        path.unlink()
    with pytest.raises(DataRejected, match="interactions") as caught:
        SPECS[kind].model_validate({"kind": kind, **keys}).build(tmp_path).read()
    assert len(str(caught.value).splitlines()) == 1
