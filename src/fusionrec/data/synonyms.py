"""Other people's names for the canonical columns, to guess a mapping or to ask "did you mean"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

SYNONYMS: dict[str, tuple[str, ...]] = {
    "item_id": (
        "item",
        "itemid",
        "iid",
        "id",
        "movie_id",
        "movieid",
        "product_id",
        "productid",
        "asin",
        "parent_asin",
        "article_id",
        "video_id",
        "track_id",
        "song_id",
        "artist_id",
        "book_id",
        "isbn",
        "sku",
        "news_id",
        "business_id",
    ),
    "user_id": (
        "user",
        "userid",
        "uid",
        "customer_id",
        "customerid",
        "reviewer_id",
        "reviewerid",
        "visitor_id",
        "visitorid",
        "member_id",
        "account_id",
        "client_id",
    ),
    "event": ("event_type", "eventtype", "action", "behavior", "behaviour", "interaction", "interaction_type", "type"),
    "value": ("rating", "score", "stars", "overall", "weight", "liked", "label", "preference", "plays", "count"),
    "timestamp": (
        "time",
        "ts",
        "datetime",
        "date",
        "when",
        "unixreviewtime",
        "unix_time",
        "event_time",
        "created",
        "t_dat",
    ),
    "title": ("name", "item_name", "product_name", "prod_name", "product_title", "movie_title", "headline"),
    "description": (
        "desc",
        "text",
        "plot",
        "overview",
        "summary",
        "abstract",
        "body",
        "details",
        "detail_desc",
        "content",
    ),
    "category": ("categories", "main_category", "genre", "product_type", "product_type_name", "department", "class"),
    "tags": ("genres", "keywords", "labels"),
    "brand": ("store", "manufacturer", "vendor", "label_name"),
    "price": ("cost", "amount", "list_price"),
    "language": ("lang", "locale"),
    "created_at": ("created", "release_date", "published", "published_at", "date_added", "first_seen"),
    "image_paths": ("image_path", "image", "images", "image_file", "picture", "poster", "img"),
    "audio_path": ("audio", "sound", "audio_file"),
    "video_path": ("video", "clip", "video_file"),
    "review": ("review_text", "reviewtext", "comment"),
    "query_id": ("query", "qid", "search_id"),
    "position": ("rank", "pos", "slot"),
    "session_id": ("session", "sid", "visit_id"),
    "impression_id": ("impression", "imp_id", "request_id"),
}


def plain(name: str) -> str:
    """``Item ID`` and ``itemId`` -> ``item_id``: what names are compared by."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[^a-z0-9]+", "_", snake.lower()).strip("_")


def nearest(canonical: str, columns: Sequence[str]) -> str | None:
    """The source column that most probably is ``canonical``: same plain name, a synonym, or a similar spelling."""
    by_plain = {plain(c): c for c in reversed(columns)}
    for candidate in (canonical, *SYNONYMS.get(canonical, ())):
        if candidate in by_plain:
            return by_plain[candidate]
        squeezed = {p.replace("_", ""): c for p, c in by_plain.items()}
        if candidate.replace("_", "") in squeezed:
            return squeezed[candidate.replace("_", "")]
    near = get_close_matches(canonical, list(by_plain), 1, cutoff=0.7)
    return by_plain[near[0]] if near else None
