"""The index on a hand-written shop, with the real encoders: what is found, what is left out, what is refused."""

from __future__ import annotations

import dataclasses
import io
import shutil

import numpy as np
import polars as pl
import pytest
from PIL import Image

from fusionrec.embeddings.store import Store
from fusionrec.errors import DataRejected, IntegrityError, UsageError
from fusionrec.search import past
from fusionrec.search.filters import Filters
from fusionrec.search.index import SearchIndex
from fusionrec.search.query import Query
from fusionrec.search.weights import KEYWORD, VECTOR
from fusionrec.stages import embed, learn
from tests.data.conftest import events, make
from tests.search.conftest import GOODS, Shop, goods


def found(shop: Shop, query: Query, k: int = 20, filters: Filters | None = None) -> list[str]:
    return [hit.item_id for hit in shop.index.search(query, k, filters).hits]


@pytest.mark.parametrize(
    "text, at",
    [
        ("a cup for a camping trip", 0),
        ("适合露营的杯子", 0),
        ("wedding gift", 1),
        ("结婚礼物", 1),
        ("light for the office", 2),
        ("瑜伽和冥想", 3),
        ("toy for a kid's birthday", 4),
        ("冬天的毯子", 5),
    ],
)
def test_words_find_the_product_in_both_languages(shop: Shop, text: str, at: int) -> None:
    language, other = ("en", "zh") if text.isascii() else ("zh", "en")
    first = found(shop, Query(text))
    assert first[0] == f"{language}-{at}"
    of_the_other = [item for item in first if item.startswith(other)]
    assert of_the_other.index(f"{other}-{at}") < 3  # a few texts are too few to bring languages fully together


def test_a_brand_is_found_by_its_letters(shop: Shop) -> None:
    hits = {hit.item_id: hit for hit in shop.index.search(Query("fjordby"), 3).hits}
    assert {"en-3", "zh-3"} <= set(hits)
    for item, hit in hits.items():
        assert (list(hit.words), hit.sides[KEYWORD] > 0) == ((["fjordby"], True) if item[-1] == "3" else ([], False))


def test_the_sides_add_up_and_the_order_is_by_score(shop: Shop) -> None:
    hits = shop.index.search(Query("warm blanket"), 20).hits
    for hit in hits:
        assert hit.score == pytest.approx(sum(hit.sides.values()), abs=1e-5)
        assert set(hit.sides) == {KEYWORD, VECTOR}
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert [hit.rank for hit in hits] == list(range(1, 13))


@pytest.mark.parametrize("at", range(len(GOODS)))
def test_a_picture_finds_itself_and_a_mixture_keeps_to_both(shop: Shop, at: int) -> None:
    data = (shop.paths.project / "cat" / "images" / f"{at}.png").read_bytes()
    first = found(shop, Query(image=data))
    assert first[0] in {f"en-{at}", "silent"}  # "silent" has the picture of product 4
    assert len(first) == 7  # those with a picture; the others say nothing to a picture
    both = shop.index.search(Query(text=GOODS[at][1], image=data), 3).hits
    assert both[0].item_id == f"en-{at}"
    assert set(both[0].sides) == {KEYWORD, VECTOR, "picture"}


def test_a_picture_in_another_format_and_size_is_the_same_picture(shop: Shop) -> None:
    image = Image.open(shop.paths.project / "cat" / "images" / "2.png").resize((230, 230))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    assert found(shop, Query(image=buffer.getvalue()))[0] == "en-2"


def test_filters_hold_and_count(shop: Shop) -> None:
    assert set(found(shop, Query("gift"), filters=Filters(in_stock=True))) == {f"en-{n}" for n in range(6)}
    assert set(found(shop, Query("gift"), filters=Filters(min_price=30, max_price=40))) == {
        "en-2", "zh-2", "en-3", "zh-3",
    }  # fmt: skip
    answer = shop.index.search(Query("gift"), 1, Filters(category=("toy",)))
    assert answer.found == 2 and len(answer.hits) == 1
    assert found(shop, Query("gift"), filters=Filters(min_price=1e9)) == []


def test_more_than_there_is_gives_what_there_is(shop: Shop) -> None:
    assert len(found(shop, Query("mug"), k=10_000)) == 12  # two items have no words


@pytest.mark.parametrize("text", [None, "", "  \t\n", "\0\x07\u200b"])
def test_an_empty_query_is_refused(shop: Shop, text: str | None) -> None:
    with pytest.raises(UsageError, match="the query is empty"):
        shop.index.search(Query(text))


@pytest.mark.parametrize(
    "text",
    ["<script>alert(1)</script>", "'; DROP TABLE items; --", "\ud800 lone", "a" * 100_000, "🦄🦄", "!!!", "\x1b[2J mug",
     "مرحبا", "%s%n{0}", "e\u0301" * 500],
)  # fmt: skip
def test_hostile_text_has_an_answer(shop: Shop, text: str) -> None:
    hits = shop.index.search(Query(text), 5).hits
    assert len(hits) == 5 and all(np.isfinite(hit.score) for hit in hits)


@pytest.mark.parametrize(
    "data, code",
    [(b"", "unknown_type"), (b"no picture", "unknown_type"), (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "undecodable")],
)
def test_a_corrupt_picture_is_refused_with_its_reason(shop: Shop, data: bytes, code: str) -> None:
    with pytest.raises(DataRejected, match=rf"the picture: .*\({code}\)"):
        shop.index.search(Query(image=data))
    whole = (shop.paths.project / "cat" / "images" / "0.png").read_bytes()
    with pytest.raises(DataRejected, match="the picture: "):
        shop.index.search(Query("mug", image=whole[: len(whole) // 2]))


def test_k_below_one_is_refused(shop: Shop) -> None:
    with pytest.raises(UsageError, match="k: found 0"):
        shop.index.search(Query("mug"), 0)


def test_one_text_at_a_time_and_many_at_once_agree(shop: Shop, tmp_path) -> None:
    texts = ["wedding gift", "适合露营的杯子", "fjordby"]
    sides = shop.index.scores(texts, Store(tmp_path / "store"))
    assert {name: s.shape for name, s in sides.items()} == dict.fromkeys((KEYWORD, VECTOR), (3, 14))
    for row, text in enumerate(texts):
        weights = shop.index.learnt.for_query(text)
        for hit in shop.index.search(Query(text), 20).hits:
            at = list(shop.index.ids).index(hit.item_id)
            assert hit.sides[VECTOR] == pytest.approx(weights.vector * sides[VECTOR][row, at], abs=1e-3)


def test_without_a_text_modality_words_still_find_by_letters(shop: Shop) -> None:
    index = SearchIndex.build(shop.paths, {"image": shop.params.modalities["image"]})
    hits = index.search(Query("wooden train"), 20).hits
    assert [hit.item_id for hit in hits] == ["en-4"] or hits[0].item_id == "en-4"
    assert set(hits[0].sides) == {KEYWORD}
    assert index.search(Query("zzz"), 5).hits == []
    with pytest.raises(UsageError, match="names no modality that encodes pictures"):
        SearchIndex.build(shop.paths, {}).search(Query("train", image=b"x"))


def test_a_catalogue_without_words_says_so(shop: Shop) -> None:
    index = SearchIndex.build(shop.paths, {"image": shop.params.modalities["image"]})
    mute = dataclasses.replace(index, keywords=type(index.keywords)([""] * len(index)))
    with pytest.raises(UsageError, match="cannot be searched with words"):
        mute.search(Query("mug"))


def test_missing_embeddings_name_the_command(shop: Shop, tmp_path) -> None:
    shutil.copytree(shop.paths.project, tmp_path / "p")
    paths = dataclasses.replace(shop.paths, project=tmp_path / "p", home=tmp_path / "p" / ".fusionrec")
    shutil.rmtree(paths.embeddings / "text")
    with pytest.raises(IntegrityError, match=r"data/embeddings/text is missing; run `fusionrec repro`, or `dvc repro"):
        SearchIndex.build(paths, shop.params.modalities)
    other = shop.params.modalities["image"]
    changed = other.model_copy(update={"encoder": other.encoder.model_copy(update={"features": "final"})})
    with pytest.raises(IntegrityError, match="data/embeddings/image is of another encoder"):
        SearchIndex.build(paths, {"image": changed})


def test_queries_are_asked_as_queries(shop: Shop) -> None:
    encoder = shop.params.modalities["text"].encoder
    asked = encoder.for_queries()
    assert (encoder.role, asked.role) == ("passage", "query")
    assert encoder.fingerprint() != asked.fingerprint()
    picture = shop.params.modalities["image"].encoder
    assert picture.for_queries() is picture


def test_a_catalogue_without_a_query_log_has_no_past(shop: Shop) -> None:
    assert len(past.searches(shop.paths, shop.index.ids)) == 0


def with_log(shop: Shop, folder, n: int = 240) -> tuple[object, dict]:
    """A copy of the shop whose log has ``n`` searches in words that no item has: product p is asked for as code-p."""
    from fusionrec import config
    from tests.data.conftest import Project

    shutil.copytree(shop.paths.project, folder)
    project = Project(dataclasses.replace(shop.paths, project=folder, home=folder / ".fusionrec"), {})
    import yaml

    project.params = yaml.safe_load((folder / "params.yaml").read_text())
    project.params["split"] = {"kind": "global_time", "valid_from": 15, "test_from": 16}
    days = [1 + at * 17 // n for at in range(n)]
    names = ("zephyr", "quartz", "onyx", "velvet", "ember", "tundra")
    rows = [
        {"query_id": f"q{at:03d}", "text": f"{names[at % 6]} thing {at % 4}", "user_id": f"raw-user-{at % 7}",
         "clicked_item_id": f"{('en', 'zh')[at // 6 % 2]}-{at % 6}",
         "timestamp": f"2026-01-{days[at]:02d}T{at % 24:02d}:00:00Z"}
        for at in range(n)
    ]  # fmt: skip
    project.put("queries", rows)
    project.put("interactions", [{**e, "item_id": f"en-{n % 6}"} for n, e in enumerate(events(60))])
    project.all()
    return project, {"params": config.parse(project.params), "names": names}


def test_clicks_teach_words_that_no_item_has_and_only_those_before_the_bound(shop: Shop, tmp_path) -> None:
    project, told = with_log(shop, tmp_path / "p")
    paths, params = project.paths, told["params"]
    until = past.train_ends(paths)
    index = SearchIndex.build(paths, params.modalities, until)
    earlier = past.searches(paths, index.ids, until=until)
    later = past.searches(paths, index.ids, since=until)
    assert len(earlier) + len(later) == 240 and len(later) == 42  # days 15 to 17 of 17
    assert index.learnt.told["queries"] == len(earlier) == 198 or index.learnt.map is None
    every = SearchIndex.build(paths, params.modalities)
    assert every.learnt.told["queries"] == 240
    hits = [every.search(Query(f"{name} thing"), 3).hits for name in told["names"]]
    plain = dataclasses.replace(every, learnt=type(every.learnt)())
    before = [plain.search(Query(f"{name} thing"), 3).hits for name in told["names"]]

    def right(lists) -> int:
        return sum(hit.item_id[-1] == str(at) for at, mine in enumerate(lists) for hit in mine)

    assert right(hits) >= 9 and right(before) <= 5  # of twelve; the names mean nothing to the encoder
    assert sum(mine[0].item_id[-1] == str(at) for at, mine in enumerate(hits)) >= 5  # of six
    assert all(mine[0].sides["clicks"] > 0 for mine in hits)


def test_what_was_learnt_is_kept_and_a_damaged_copy_is_learnt_again(shop: Shop, tmp_path) -> None:
    project, told = with_log(shop, tmp_path / "p")
    paths, params = project.paths, told["params"]
    first = SearchIndex.build(paths, params.modalities)
    (kept,) = (paths.home / "search").iterdir()
    before = (kept / "learnt.safetensors").stat().st_mtime_ns
    again = SearchIndex.build(paths, params.modalities)
    assert (kept / "learnt.safetensors").stat().st_mtime_ns == before
    assert again.learnt.weights == first.learnt.weights and again.learnt.words == first.learnt.words
    assert first.learnt.map is not None and again.learnt.map is not None
    np.testing.assert_array_equal(again.learnt.map.items, first.learnt.map.items)
    file = kept / "learnt.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(bytes(data))
    healed = SearchIndex.build(paths, params.modalities)
    assert healed.learnt.map is not None
    np.testing.assert_array_equal(healed.learnt.map.items, first.learnt.map.items)


def test_what_was_learnt_is_learnt_again_where_what_it_stands_on_has_changed(shop: Shop, tmp_path) -> None:
    project, told = with_log(shop, tmp_path / "p")
    params = told["params"]

    def kept() -> set[str]:
        SearchIndex.build(project.paths, params.modalities)
        return {folder.name for folder in (project.paths.home / "search").iterdir()}

    def change(table: str, column: pl.Expr) -> None:
        frame = pl.read_csv(project.root / f"{table}.csv", infer_schema_length=None)
        project.put(table, frame.with_columns(column).to_dicts())
        project.all()
        for name in params.modalities:
            embed.run(params, project.paths, modality=name)

    seen = kept()
    assert kept() == seen
    for table, column in (
        ("items", pl.when(pl.col("item_id") == "zh-0").then(pl.lit("en")).otherwise("language").alias("language")),
        ("items", pl.when(pl.col("item_id") == "en-3").then(pl.lit("Hjemly")).otherwise("brand").alias("brand")),
        ("queries", pl.lit("raw-user-0").alias("user_id")),
    ):
        change(table, column)
        now = kept()
        assert now - seen, f"{table}: what other facts taught was used"
        seen |= now
    assert not SearchIndex.build(project.paths, params.modalities).learnt.words, "all are words of one person"


def test_an_encoder_that_was_learnt_here_answers_searches(tmp_path) -> None:
    project = make(tmp_path / "p")
    lstm = {
        "kind": "lstm_text",
        "dim": 8,
        "width": 8,
        "hidden": 4,
        "buckets": 99,
        "learning": {"epochs": 2, "items": 8},
    }
    project.params["modalities"] = {"text": {"kind": "text", "encoder": lstm}}
    project.put("items", goods())
    project.put("interactions", [{**e, "item_id": f"{('en', 'zh')[n % 2]}-{n % 6}"} for n, e in enumerate(events(90))])
    project.all()
    params = project.load()
    learn.run(params, project.paths)
    embed.run(params, project.paths, modality="text")
    index = SearchIndex.build(project.paths, params.modalities)
    hits = index.search(Query("enamel mug"), 20).hits
    assert hits[0].item_id == "en-0" and {*hits[0].sides} == {KEYWORD, VECTOR} and len(hits) == 12


def test_a_catalogue_whose_words_stand_in_other_columns_is_searched(tmp_path) -> None:
    project = make(tmp_path / "p")
    project.params["modalities"] = {"text": {"kind": "text", "fields": ["plot", "year"], "encoder": {"kind": "minilm"}}}
    plots = ("A whale hunts a ship", "Two thieves and a diamond", "War in a galaxy", "A dog walks home", "", "Rain")
    rows = [
        {"item_id": f"en-{n}", "plot": plot, "tags": "sea|storm" if n == 5 else None} for n, plot in enumerate(plots)
    ]
    project.put("items", [{**row, "year": 1990 + n} for n, row in enumerate(rows)])
    project.put("interactions", [{**e, "item_id": f"en-{n % 6}"} for n, e in enumerate(events(60))])
    project.all()
    params = project.load()
    embed.run(params, project.paths, modality="text")
    index = SearchIndex.build(project.paths, params.modalities)
    first = index.search(Query("whale"), 3).hits[0]
    assert first.item_id == "en-0" and first.words == ["whale"] and first.title == "en-0"
    assert [index.search(Query(text), 1).hits[0].item_id for text in ("storm", "1993")] == ["en-5", "en-3"]
    tagged = SearchIndex.build(project.paths, {})
    assert [hit.item_id for hit in tagged.search(Query("storm whale"), 3).hits] == ["en-5"]
    project.put("items", [{"item_id": row["item_id"], "plot": row["plot"]} for row in rows])
    project.all()
    with pytest.raises(UsageError, match="cannot be searched with words"):
        SearchIndex.build(project.paths, {}).search(Query("whale"))


def test_searches_join_what_was_clicked(shop: Shop, tmp_path) -> None:
    project, _ = with_log(shop, tmp_path / "p", n=30)
    extra = pl.DataFrame(
        {
            "user_id": ["raw-user-0"] * 3,
            "item_id": ["zh-5", "en-0", "gone"],
            "event": ["click", "view", "click"],
            "timestamp": ["2026-01-01T01:00:00Z"] * 3,
            "query_id": ["q000"] * 3,
        }
    )
    log = pl.read_csv(project.root / "interactions.csv")
    pl.concat([log, extra], how="diagonal").write_csv(project.root / "interactions.csv")
    project.all()
    ids = shop.index.ids
    searches = past.searches(project.paths, ids)
    assert searches.texts[0] == "zephyr thing 0" and ids[searches.first[0]] == "en-0"
    assert {ids[row] for row in searches.clicked[0]} == {"en-0", "zh-5"}  # a view is no choice
    assert len(searches.users[0]) == 32  # a pseudonym
