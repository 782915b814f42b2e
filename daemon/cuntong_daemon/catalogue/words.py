"""Words for the catalogue's search: how text becomes tokens, and a query an FTS5 expression.

Scripts that are written without spaces (Han, Kana, Hangul, Yi) become one token a character, so a word of
any length is found inside longer text as a phrase. Everything else becomes words, found by their
beginning. Traditional characters are folded to simplified ones, each by itself: folding by phrases would
fold 乾 in 乾隆 and in 乾燥 differently, and then a part of a word would not find the whole.
"""

from __future__ import annotations

import unicodedata
from types import TracebackType
from typing import Self

import opencc

from cuntong_daemon.memory import return_memory

MAX_INDEXED_CHARS = 65_536
"""No descriptor holds more text than this (SPEC 3.3); reading one can't cost more."""
MAX_QUERY_CHARS = 200
MAX_QUERY_WORDS = 32
"""More than anyone types; each is a look-up in the index."""

_SINGLE = (
    (0x3007, 0x3007),  # The ideographic zero.
    (0x3040, 0x30FF),  # Kana.
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Han.
    (0x4E00, 0x9FFF),
    (0xA000, 0xA48F),  # Yi.
    (0xAC00, 0xD7A3),  # Hangul: particles follow a word without a space.
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
_LATIN_MARKS = range(0x0300, 0x0370)
"""Accents on Latin, Greek and Cyrillic letters; marks of other scripts are parts of their words."""


class Folder:
    """Folds traditional characters to simplified ones; a context manager.

    The tables take about 3 MB, so they are there only inside the block (DESIGN 12: 80 MiB in all).
    """

    def __init__(self) -> None:
        self._converter: opencc.OpenCC | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._converter is not None:
            self._converter = None
            return_memory()

    def words(self, text: str) -> list[list[str]]:
        """The words of a text, each a list of tokens: single characters or a Latin word.

        A word ends at a space or at punctuation: `2027年新戏` is one word of four tokens.
        """
        found: list[list[str]] = []
        word: list[str] = []
        letters = ""
        for char in _normalised(text[:MAX_INDEXED_CHARS]):
            if _is_single(char):
                if letters:
                    word.append(letters)
                    letters = ""
                word.append(char)
            elif unicodedata.category(char)[0] in "LNM" or unicodedata.category(char) == "Co":
                letters += char
            else:
                if letters:
                    word.append(letters)
                if word:
                    found.append(word)
                word, letters = [], ""
        if letters:
            word.append(letters)
        if word:
            found.append(word)
        return [self._fold(tokens) for tokens in found]

    def _fold(self, tokens: list[str]) -> list[str]:
        if all(token.isascii() for token in tokens):
            return tokens
        if self._converter is None:
            self._converter = opencc.OpenCC("t2s")
        # The spaces between the characters keep the phrase tables out.
        folded: str = self._converter.convert(" ".join(tokens))
        return folded.split(" ")

    def indexed(self, text: str) -> str:
        """What is stored in the index: the tokens with spaces between them."""
        return " ".join(token for word in self.words(text) for token in word)

    def expression(self, query: str) -> str:
        """An FTS5 expression that demands every word of the query; empty when it holds no word.

        Tokens hold only letters, digits and marks, so nothing a person types is FTS5 syntax.
        """
        parts = []
        for tokens in self.words(query[:MAX_QUERY_CHARS])[:MAX_QUERY_WORDS]:
            is_prefix = not _is_single(tokens[-1][0])
            parts.append(f'"{" ".join(tokens)}"' + ("*" if is_prefix else ""))
        return " AND ".join(parts)


def _normalised(text: str) -> str:
    """Compatibility forms, case and accents made one."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize(
        "NFC", "".join(char for char in decomposed if ord(char) not in _LATIN_MARKS)
    )


def _is_single(char: str) -> bool:
    code = ord(char)
    return code >= 0x3000 and any(first <= code <= last for first, last in _SINGLE)
