"""The languages the gate knows: ISO 639-1, as bare codes with an optional script or region (``en``, ``zh-Hans``,
``pt_BR``)."""

from __future__ import annotations

import polars as pl

ISO_639_1 = frozenset(
    """
    aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee
    el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is
    it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms
    mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk
    sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi
    yo za zh zu
    """.split()
)
PATTERN = r"^(?i:" + "|".join(sorted(ISO_639_1)) + r")([-_][A-Za-z0-9]{2,8})*$"

NAMES = dict(
    pair.split(":")
    for pair in """
    english:en chinese:zh mandarin:zh spanish:es french:fr german:de italian:it portuguese:pt russian:ru
    japanese:ja korean:ko arabic:ar hindi:hi bengali:bn dutch:nl polish:pl turkish:tr swedish:sv danish:da
    norwegian:no finnish:fi czech:cs slovak:sk hungarian:hu romanian:ro greek:el hebrew:he thai:th vietnamese:vi
    indonesian:id malay:ms persian:fa ukrainian:uk bulgarian:bg croatian:hr serbian:sr catalan:ca cantonese:zh
    tamil:ta telugu:te urdu:ur swahili:sw icelandic:is latin:la
    """.split()
)
"""English names of languages, which ingest turns into codes; a list of several languages is none."""


def coded(series: pl.Series) -> pl.Series:
    """Languages by their English name -> ISO 639-1 codes; everything else stays as it is."""
    name = series.str.strip_chars().str.to_lowercase()
    return name.replace_strict(NAMES, default=series, return_dtype=pl.String).rename(series.name)
