"""The command that searches the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fusionrec.cli.root import app, params_of, print_table, project, say

if TYPE_CHECKING:
    from fusionrec.search.index import Answer

PANEL = "Models"
MOST = 1_000


@app.command(rich_help_panel=PANEL)
def search(
    text: Annotated[str | None, typer.Option(help="words, in any language the text encoder knows")] = None,
    image: Annotated[Path | None, typer.Option(help="a picture: items that look like it")] = None,
    audio: Annotated[Path | None, typer.Option(help="a spoken query (English)")] = None,
    k: Annotated[int, typer.Option(min=1, max=MOST, help="how many items")] = 10,
    category: Annotated[list[str] | None, typer.Option(help="only this category (repeatable)")] = None,
    language: Annotated[str | None, typer.Option(help="only items described in this language, e.g. zh")] = None,
    in_stock: Annotated[bool, typer.Option("--in-stock", help="only what is in stock")] = False,
    min_price: Annotated[float | None, typer.Option(help="lowest price")] = None,
    max_price: Annotated[float | None, typer.Option(help="highest price")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object instead of a table")] = False,
) -> None:
    """Find items by words, a picture, a spoken sentence, or any mixture of them."""
    import json

    from fusionrec.errors import ConfigError, UsageError
    from fusionrec.search import past, query
    from fusionrec.search.filters import checked
    from fusionrec.search.index import SearchIndex
    from fusionrec.stages.progress import counted

    if not (text and text.strip()) and image is None and audio is None:
        raise UsageError("the query is empty: give --text WORDS, --image FILE, --audio FILE or several of them")
    asked = query.Query(
        text,
        query.read_file(image) if image else None,
        query.read_file(audio) if audio else None,
        str(image),
        str(audio),
    )
    filters = checked(
        category=tuple(category or ()), language=language, in_stock=in_stock, min_price=min_price, max_price=max_price
    )
    paths = project()
    if not (paths.splits / "summary.json").is_file():
        raise ConfigError("nothing to search yet: run `fusionrec repro` first")
    with counted("earlier queries") as progress:
        index = SearchIndex.build(paths, params_of(paths).modalities, past.train_ends(paths), progress)
    answer = index.search(asked, k, filters)
    if as_json:
        print(json.dumps(_json(answer), ensure_ascii=False, indent=1))
    else:
        _show(answer)


def _json(answer: Answer) -> dict[str, Any]:
    from fusionrec.data.schema import printable

    return {
        "heard": answer.heard,
        "found": answer.found,
        "hits": [
            {
                "rank": hit.rank,
                "item_id": hit.item_id,
                "title": printable(hit.title, 200),
                "score": round(hit.score, 4),
                "sides": {name: round(part, 4) for name, part in hit.sides.items()},
                "words": list(hit.words),
            }
            for hit in answer.hits
        ],
    }


def _show(answer: Answer) -> None:
    from fusionrec.data.schema import printable

    if answer.heard is not None:
        say(f"heard: {printable(answer.heard, 200)}")
    if not answer.hits:
        say("no item meets the query and the filters")
        return
    print_table(
        [
            {
                "rank": hit.rank,
                "item": printable(hit.item_id),
                "title": printable(hit.title),
                "score": hit.score,
                "why": _why(hit.sides, hit.words),
            }
            for hit in answer.hits
        ]
    )


def _why(sides: Any, words: Any) -> str:
    """``keyword +0.31 (vase, iris), vector +1.20``: what each side added, and the words that the item has."""
    from fusionrec.data.schema import printable

    parts = [f"{name} {part:+.2f}" for name, part in sides.items()]
    if words and parts:
        parts[0] += f" ({printable(', '.join(words), 60)})"
    return ", ".join(parts)
