"""Text -> tokens of the keyword index.

Scripts that put spaces between words give words. Chinese and Japanese do not: each character and each pair of
neighbours is a token, which finds words without a dictionary (Nie, Gao, Zhang, Zhou, "On the use of words and n-grams
for Chinese information retrieval", IRAL 2000).
"""

from __future__ import annotations

import re
import unicodedata

import regex

_WORD = regex.compile(r"[\p{L}\p{N}][\p{L}\p{N}\p{M}]*")  # marks are the vowels of many scripts
_UNSAID = re.compile("(?<=i)\u0307|[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u064b-\u0652\u0670]")
"""The second dot of a lower-case \u0130, and the points of Hebrew and Arabic, which are written for learners."""
_SPACELESS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_PIECE = re.compile(f"[{_SPACELESS}]+|[^{_SPACELESS}]+")
_HAN_OR_KANA = re.compile(f"[{_SPACELESS}]")


def tokens(text: str) -> list[str]:
    """Tokens in reading order, with repeats; [] where the text holds no letter or digit. Width and case are folded."""
    folded = _UNSAID.sub("", unicodedata.normalize("NFKC", text).casefold())
    out: list[str] = []
    for word in _WORD.findall(folded):
        for piece in _PIECE.findall(word):
            if _HAN_OR_KANA.match(piece):
                out += [*piece, *(piece[at : at + 2] for at in range(len(piece) - 1))]
            else:
                out.append(piece)
    return out
