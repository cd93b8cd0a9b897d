"""A spec's space as distributions, and a choice back as a spec."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import pytest
from pydantic import ValidationError

from fusionrec.errors import ConfigError
from fusionrec.kinds import members
from fusionrec.recommenders import AnyRetriever
from fusionrec.recommenders.base import RetrieverSpec
from fusionrec.recommenders.blend import Blend
from fusionrec.recommenders.ease import EASE
from fusionrec.recommenders.training import Training
from fusionrec.studies.space import digest, get, replaced, space_of
from tests.studies.toys import Few, Pair, Plain, Toy


def test_the_choices_are_the_declared_values_and_the_one_given() -> None:
    found = space_of(Toy(size=4))
    assert dict(found.choices) == {
        "size": (1, 3, 4, 6, 9),  # numbers in order
        "training.lr": (1e-3, 1e-2),
        "layers": ((64, 32), (64,), ()),
        "flag": (False, True),
    }
    assert found.size == 5 * 2 * 3 * 2
    assert found.values(found.own) == {"size": 4, "training.lr": 1e-3, "layers": (64, 32), "flag": False}
    assert found.chosen(found.own) == found.spec
    assert space_of(Toy()).size == 48 and space_of(Plain()).size == 1 and space_of(Plain()).own == ()


def test_optuna_gets_an_order_of_numbers_and_labels_of_the_rest() -> None:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    assert space_of(Toy()).distributions() == {
        "size": IntDistribution(0, 3),
        "training.lr": CategoricalDistribution(["0.001", "0.01"]),
        "layers": CategoricalDistribution(["[64, 32]", "[64]", "[]"]),
        "flag": CategoricalDistribution(["false", "true"]),
    }


def test_every_point_goes_to_optuna_and_back() -> None:
    space = space_of(Toy())
    points = [space.point(n) for n in range(space.size)]
    assert len(set(points)) == space.size == 48
    assert [space.read(space.params(p)) for p in points] == points
    specs = [space.chosen(p) for p in points]
    assert len({digest(s) for s in specs}) == 48
    assert all(s.training.epochs == 7 for s in specs), "what is not searched stays"
    assert {s.training.lr for s in specs} == {1e-3, 1e-2}


def test_parts_bring_their_own_space() -> None:
    pair = Pair(first=Toy(), others=(Plain(), Few(size=2)))
    space = space_of(pair)
    assert list(space.choices) == [
        "weight", "first.size", "first.training.lr", "first.layers", "first.flag", "others.1.size",
    ]  # fmt: skip
    made = replaced(pair, {"others.1.size": 5, "first.training.lr": 0.01, "first.training.epochs": 3, "weight": 2})
    assert isinstance(made, Pair) and isinstance(made.others, tuple)
    assert (made.others[1], made.others[0]) == (Few(size=5), Plain()) and made.weight == 2.0
    assert made.first == Toy(training=Training(epochs=3, lr=0.01))
    assert pair.first == Toy(), "the old spec stays as it was"


def test_an_outer_declaration_wins_over_a_parts_own() -> None:
    class Strict(Pair):
        space: ClassVar = {"first.size": (1, 9)}

    assert space_of(Strict(first=Few())).choices["first.size"] == (1, 4, 9)


def test_a_blend_of_registered_models_holds_their_spaces() -> None:
    class Ridge(EASE):
        space: ClassVar = {"l2": ((20.0,), (300.0,))}

    space = space_of(Blend(parts=(Ridge(l2=(20.0,)), EASE())))
    assert space.choices["parts.0.l2"] == ((20.0,), (300.0,))
    made = space.chosen(space.read({**space.params(space.own), "parts.0.l2": "[300.0]"}))
    assert isinstance(made, Blend) and made.parts[0].l2 == (300.0,)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "field, words",
    [
        ("sise", r"toy has no field 'sise' \(did you mean 'size'\?\); known are kind, size, layers, flag, training"),
        ("training.epoch", r"no field 'training.epoch' .*'training.epochs'.*known are training.epochs, training.batch"),
        ("size.more", "toy has no field 'size.more'; size holds no fields"),
        ("layers.2", "known are layers.0, layers.1"),
    ],
)
def test_an_unknown_field_names_the_known_ones(field: str, words: str) -> None:
    for ask in (lambda: get(Toy(), field), lambda: replaced(Toy(), {field: 1})):
        with pytest.raises(ConfigError, match=words):
            ask()


@pytest.mark.parametrize(
    "space, words",
    [
        ({"sise": (1, 2)}, "did you mean 'size'"),
        ({"size": (1, -2)}, "size cannot be -2: Input should be greater than 0"),
        ({"size": ()}, "size has no values"),
        ({"training": (Training(),), "training.lr": (0.1,)}, "training.lr lies inside training"),
    ],
)
def test_a_bad_space_is_told_before_anything_runs(space: dict[str, Any], words: str) -> None:
    wrong = type("Wrong", (Toy,), {"space": space, "__annotations__": {"space": ClassVar}})
    with pytest.raises(ConfigError, match=words):
        space_of(wrong())


def test_a_bad_value_is_refused_and_validators_see_all_values_at_once() -> None:
    from pydantic import model_validator

    class Ordered(RetrieverSpec):
        kind: Literal["ordered"] = "ordered"
        low: int = 1
        high: int = 2

        @model_validator(mode="after")
        def _check(self) -> Ordered:
            if self.low >= self.high:
                raise ValueError("low must be below high")
            return self

    assert replaced(Ordered(), {"low": 5, "high": 7}) == Ordered(low=5, high=7)
    with pytest.raises(ValidationError, match="low must be below high"):
        replaced(Ordered(), {"low": 5})


def test_the_digest_sees_every_field_of_every_part() -> None:
    pair = Pair(first=Toy(), others=(Few(),))
    same = Pair(first=Toy(training=Training(epochs=7, lr=1e-3)), others=(Few(size=4),))
    assert digest(pair) == digest(same)
    others = [
        Pair(first=Toy(flag=True), others=(Few(),)), Pair(first=Toy(), others=(Few(size=5),)),
        Pair(first=Toy(), others=(Plain(size=4),)),
    ]  # fmt: skip
    assert len({digest(p) for p in (pair, *others)}) == 4


@pytest.mark.parametrize("spec", [s for s in members(AnyRetriever) if s.space], ids=lambda s: s.__name__)
def test_every_registered_space_is_usable(spec: type[RetrieverSpec]) -> None:
    needed = {"generated": {"of": {"kind": "popularity"}}}  # what a spec needs beyond its defaults
    space = space_of(spec.model_validate(needed.get(spec.model_fields["kind"].default, {})))
    assert space.size > 1
    assert space.chosen(space.point(space.size - 1)) != space.chosen(space.point(0))
