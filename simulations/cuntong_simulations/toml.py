"""TOML for people: on which line a value stands, which key was probably meant.

`tomllib` reads values and forgets where they stood, and so do the other libraries; `lines` finds the places again in
a text that `tomllib` has accepted.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

Path = tuple[str | int, ...]
"""`("tier", 0, "links", 1, "down")`."""

_SPACE = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_REST = re.compile(r"[^\n]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BARE_VALUE = re.compile(r"[^,\]}\n#]+")
MOST_DEEP = 64
"""Levels of which the lines are noted: no document that anybody reads has so many, and each costs the square of it."""


def lines(text: str) -> dict[Path, int]:
    """The line, from 1, of each table, key and list element of a valid TOML document."""
    return _Scanner(text).scan()


def nearest(word: str, known: list[str]) -> str:
    """The known word that is most like it; "-" when there is none at all."""
    alike = {name.casefold(): name for name in known}
    found = difflib.get_close_matches(word.casefold(), alike, n=1, cutoff=0.0)
    return alike[found[0]] if found else "-"


def unknown_key(given: dict[str, Any], kind: type[msgspec.Struct], at: Path = ()) -> tuple[Path, str] | None:  # fmt: skip
    """The first key that isn't a field of the struct, or of one within it, and the nearest field's name."""
    fields = _fields(kind)
    for key, value in given.items():
        if key not in fields:
            return (*at, key), nearest(key, list(fields))
        for inner in fields[key]:
            tables = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
            for number, table in tables:
                if isinstance(table, dict):
                    place: Path = (*at, key) if number is None else (*at, key, number)
                    found = unknown_key(table, inner, place)
                    if found is not None:
                        return found
    return None


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, list[type[msgspec.Struct]]]:
    """The keys of a table, and the structs that each may hold."""
    types = get_type_hints(kind)
    return {
        field.encode_name: structs_in(types[field.name]) for field in msgspec.structs.fields(kind)
    }


def structs_in(kind: Any) -> list[type[msgspec.Struct]]:  # noqa: ANN401 - any annotation.
    """The structs in an annotation: itself, or what a list or an optional holds."""
    if get_origin(kind) is None:
        return [kind] if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else []
    return [found for inner in get_args(kind) for found in structs_in(inner)]


def written(path: Path) -> str:
    """As in an error: `tier[0].links[1].down`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def parsed(text: str) -> Path:
    """The inverse of `written`, for the paths that msgspec gives."""
    return tuple(
        int(number) if number else name
        for number, name in re.findall(r"\[([0-9]+)\]|([^.\[\]]+)", text)
    )


class _Scanner:
    """Walks through the text once; what it meets is valid, so it only looks for where things begin."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[Path, int] = {}
        self.counts: dict[Path, int] = {}
        self._line = 1
        self._counted_to = 0

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        while self._skip(_SPACE) < len(self.text):
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_REST)
        return self.found

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return self.at

    def _note(self, path: Path) -> None:
        self._line += self.text.count("\n", self._counted_to, self.at)
        self._counted_to = self.at
        for length in range(1, min(len(path), MOST_DEEP) + 1):
            self.found.setdefault(path[:length], self._line)

    def _header(self) -> Path:
        is_list = self.text.startswith("[[", self.at)
        begin = self.at
        self.at += 2 if is_list else 1
        path: Path = ()
        parts = self._key()
        for number, part in enumerate(parts):
            path = (*path, part)
            if is_list and number == len(parts) - 1:
                self.counts[path] = self.counts.get(path, -1) + 1
            if path in self.counts:
                path = (*path, self.counts[path])
        end, self.at = self.at, begin
        self._note(path)
        self.at = end
        return path

    def _key(self) -> list[str]:
        parts: list[str] = []
        while True:
            self._skip(_BLANK)
            match = _STRING.match(self.text, self.at) or _BARE_KEY.match(self.text, self.at)
            if match is None:  # Not reached in what tomllib has read.
                self.at += 1
                return parts
            self.at = match.end()
            quoted = match[0]
            parts.append(_unquoted(quoted) if quoted[0] in "\"'" else quoted)
            self._skip(_BLANK)
            if self.text[self.at : self.at + 1] != ".":
                return parts
            self.at += 1

    def _pair(self, table: Path) -> None:
        begin = self.at
        path = (*table, *self._key())
        end, self.at = self.at, begin
        self._note(path)
        self.at = end + 1  # The `=`.
        self._value(path)

    def _value(self, path: Path) -> None:
        self._skip(_BLANK)
        sign = self.text[self.at : self.at + 1]
        if sign == "[":
            self._items(path, "]")
        elif sign == "{":
            self._items(path, "}")
        else:
            self._skip(_STRING if sign in ("'", '"') else _BARE_VALUE)

    def _items(self, path: Path, end: str) -> None:
        self.at += 1
        number = 0
        while self._skip(_SPACE) < len(self.text) and self.text[self.at] != end:
            if self.text[self.at] == ",":
                self.at += 1
            elif end == "]":
                self._note((*path, number))
                self._value((*path, number))
                number += 1
            else:
                self._pair(path)
        self.at += 1


def _unquoted(key: str) -> str:
    return str(next(iter(tomllib.loads(f"{key} = 0"))))
