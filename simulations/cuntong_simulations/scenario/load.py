"""Reading a scenario: what it extends, which key is unknown, which value can't be, each with file and line."""

from __future__ import annotations

import codecs
import os
import re
import tomllib
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from cuntong_protocol.texts import N_
from cuntong_simulations import toml

from .changes import change
from .checks import check
from .errors import ScenarioError
from .files import contents
from .origin import Origin
from .scenario import Scenario
from .units import Quantity, UnitError, shown

MAX_FILE_BYTES = 1024 * 1024
"""Ten thousand releases; what is larger isn't a scenario."""
MAX_EXTENDS = 16
"""Nobody follows a longer chain of files."""
_PROSE = ("title", "sources")
"""May have several lines."""
Places = dict[toml.Path, tuple[str, int]]


def load(
    path: Path,
    settings: Mapping[str, str] | None = None,
    options: Mapping[str, str | int] | None = None,
) -> Scenario:
    """Read a scenario, and all that it extends, and check it.

    The files that it names stand in it as they are found from here, whichever file named them.

    Args:
        path: The file.
        settings: Values that it is to have instead of its own, by key, as in `changes.change`.
        options: Those of the command line that stand for a key of `[run]`.

    Raises:
        ScenarioError: with file, line and reason.
    """
    given, places = _read(path, ())
    for key, value in (settings or {}).items():
        places[change(given, key, value)] = (f"--set {key}", 1)
    for key, option in (options or {}).items():
        places[change(given, f"run.{key}", str(option))] = (f"--{key}", 1)
    origin = Origin(str(path), places)
    scenario = _convert(given, origin)
    check(scenario, origin)
    return scenario


def _read(path: Path, above: tuple[Path, ...]) -> tuple[dict[str, Any], Places]:
    """A file's tables over those of the file that it extends, and where everything stands."""
    # A file from Windows may begin with a byte order mark.
    data = contents(path, MAX_FILE_BYTES).removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode().replace("\r\n", "\n")
        given = tomllib.loads(text)
        places: Places = {place: (str(path), line) for place, line in toml.lines(text).items()}
    except UnicodeDecodeError as error:
        raise ScenarioError(
            "sim.file-not-utf8",
            N_("{file}, line {line}: this isn't UTF-8; save the file in that encoding."),
            file=str(path),
            line=data.count(b"\n", 0, error.start) + 1,
        ) from None
    except (ValueError, RecursionError) as error:  # Also a number of 5,000 digits.
        raise _not_toml(path, text, error) from None
    _find_files(given, path.parent)
    if "extends" not in given:
        return given, places
    base = given.pop("extends")
    origin = Origin(str(path), places)
    if not isinstance(base, str) or not base:
        raise origin.refusal(
            ("extends",),
            "sim.extends-what",
            N_("{file}, line {line}: extends has to name one other scenario's file."),
        )
    target = path.parent / base
    if not os.path.isfile(target):  # noqa: PTH113 - of a name that can't be it says no, and doesn't fail.
        raise origin.refusal(
            ("extends",),
            "sim.extends-missing",
            N_("{file}, line {line}: there is no file {base} that could be extended."),
            base=str(target),
        )
    chain = (*above, path.resolve())
    if target.resolve() in chain:
        raise origin.refusal(
            ("extends",),
            "sim.extends-circle",
            N_("{file}, line {line}: {base} extends this file in turn."),
            base=base,
        )
    if len(chain) >= MAX_EXTENDS:
        raise origin.refusal(
            ("extends",),
            "sim.extends-too-many",
            N_("{file}, line {line}: no more than {most} files can extend each other."),
            most=MAX_EXTENDS,
        )
    under, under_places = _read(target, chain)
    replaced = frozenset(_merge(under, given, ()))

    def is_replaced(place: toml.Path) -> bool:
        return any(place[:length] in replaced for length in range(1, len(place) + 1))

    kept = {place: where for place, where in under_places.items() if not is_replaced(place)}
    new = {place: where for place, where in places.items() if is_replaced(place)}
    return under, kept | new


def _find_files(given: dict[str, Any], folder: Path) -> None:
    """Make the names of files independent of the file that they stand in."""
    releases = given.get("release")
    named = (given.get("places"), given.get("calibration"))
    for table in (*named, *(releases if isinstance(releases, list) else ())):
        if isinstance(table, dict) and isinstance(table.get("file"), str) and table["file"]:
            table["file"] = str(folder / table["file"])


def _merge(under: dict[str, Any], over: dict[str, Any], at: toml.Path) -> Iterator[toml.Path]:
    """Tables are merged key by key; everything else, lists too, is replaced: what was, is told."""
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(under.get(key), dict):
            yield from _merge(under[key], value, (*at, key))
        else:
            under[key] = value
            yield (*at, key)


def _not_toml(path: Path, text: str, error: Exception) -> ScenarioError:
    found = re.fullmatch(
        r"(.*) \(at (?:line ([0-9]+), column [0-9]+|end of document)\)", str(error)
    )
    reason = found[1] if found else str(error)
    line = 1
    if found:
        line = int(found[2] or text.rstrip("\n").count("\n") + 1)
    is_day = reason.startswith("Invalid date")
    return ScenarioError(
        "sim.file-not-toml",
        N_("{file}, line {line}: there is no such day or time.")
        if is_day
        else N_("{file}, line {line}: this isn't valid TOML ({reason})."),
        file=str(path),
        line=line,
        reason=reason,
    )


def _convert(given: dict[str, Any], origin: Origin) -> Scenario:
    unknown = toml.unknown_key(given, Scenario)
    if unknown is not None:
        path, near = unknown
        raise origin.refusal(
            path,
            "sim.unknown-key",
            N_("{file}, line {line}: {key} isn't a known key; the nearest is {nearest}."),
            nearest=near,
        )
    for path, text in _texts(given, ()):
        allowed = "\n\t" if path[0] in _PROSE else ""
        if any(unicodedata.category(sign) == "Cc" and sign not in allowed for sign in text):
            raise origin.refusal(
                path,
                "sim.control-character",
                N_("{file}, line {line}: {key} has a line break or another character that can't be shown."),
            )  # fmt: skip
    try:
        return msgspec.convert(given, Scenario, dec_hook=_quantity)
    except msgspec.ValidationError as error:
        raise _refusal(error, given, origin) from None


def _texts(given: Any, at: toml.Path) -> Iterator[tuple[toml.Path, str]]:  # noqa: ANN401 - as read.
    """All texts, keys too, and where they stand."""
    entries = given.items() if isinstance(given, dict) else enumerate(given)
    for key, value in entries:
        if isinstance(key, str):
            yield (*at, key), key
        if isinstance(value, str):
            yield (*at, key), value
        elif isinstance(value, dict | list):
            yield from _texts(value, (*at, key))


def _quantity(kind: type, given: object) -> Quantity:
    if not issubclass(kind, Quantity):  # pragma: no cover - a field of a kind that nobody reads.
        raise NotImplementedError
    return kind.of(given)


def _refusal(
    error: msgspec.ValidationError, given: dict[str, Any], origin: Origin
) -> ScenarioError:
    """What msgspec found, in a planner's words."""
    text = str(error)
    path, is_key = _place(text, given)
    cause = error.__cause__
    if isinstance(cause, UnitError):
        return origin.refusal(path, cause.code, cause.template, **cause.params)
    if missing := re.search(r"missing required field `(\w+)`", text):
        return origin.refusal(
            (*path, missing[1]), "sim.missing-key", N_("{file}, line {line}: {key} is missing.")
        )
    if is_key:
        return origin.refusal(
            path,
            "sim.unknown-key",
            N_("{file}, line {line}: {key} isn't a known key; the nearest is {nearest}."),
            nearest=toml.nearest(str(path[-1]), _words_at(path)),
        )
    if word := re.search(r"Invalid enum value ['\"](.*)['\"] - at ", text, re.DOTALL):
        known = _words_at(path)
        return origin.refusal(
            path,
            "sim.unknown-word",
            N_("{file}, line {line}: {key} can't be {value}; the nearest that it can be is {nearest}."),
            value=shown(word[1]),
            nearest=toml.nearest(word[1], known),
        )  # fmt: skip
    if bound := re.search(
        r"Expected `(?:int|float|array|str)` (of length )?([<>]=?) ([0-9.]+)", text
    ):
        template = {
            (True, True): N_("{file}, line {line}: {key} can't be empty."),
            (True, False): N_("{file}, line {line}: {key} may have {bound} entries at most."),
            (False, True): N_("{file}, line {line}: {key} has to be at least {bound}."),
            (False, False): N_("{file}, line {line}: {key} may be {bound} at most."),
        }[bool(bound[1]), ">" in bound[2]]
        return origin.refusal(path, "sim.out-of-bounds", template, bound=f"{float(bound[3]):.15g}")  # fmt: skip
    wanted = re.search(r"Expected `([^`]*)`", text)
    names = {
        "int": N_("{file}, line {line}: {key} has to be a whole number."),
        "float": N_("{file}, line {line}: {key} has to be a number."),
        "array": N_("{file}, line {line}: {key} has to be a list, in square brackets."),
        "object": N_("{file}, line {line}: {key} has to be a table."),
        "date": N_("{file}, line {line}: {key} has to be a day such as 2027-03-01."),
    }
    template = names.get(
        wanted[1] if wanted else "date" if "RFC3339" in text else "", N_("{file}, line {line}: {key} has to be a text, in quotation marks.")
    )  # fmt: skip
    return origin.refusal(path, "sim.wrong-kind", template)


def _place(text: str, given: dict[str, Any]) -> tuple[toml.Path, bool]:
    """Where msgspec found something, and whether it is a key rather than a value.

    In a table with free names, such as the calendars, it doesn't say below which: that is asked entry by entry.
    """
    found = re.search(r" - at (`key` in )?`\$\.?([^`]*)`$", text)
    if found is None:
        return (), False
    before, dots, after = found[2].partition("[...]")
    path = toml.parsed(before)
    if not (found[1] or dots):
        return path, False
    table: Any = given
    for part in path:
        table = table[part]
    for key, value in table.items():
        try:
            msgspec.convert({key: value}, _annotation(path), dec_hook=_quantity)
        except msgspec.ValidationError:
            return (*path, key, *toml.parsed(after)), bool(found[1])
    return path, False  # pragma: no cover - one of them is the reason.


def _words_at(path: toml.Path) -> list[str]:
    """The words that a field of literals may have."""

    def words(kind: Any) -> list[str]:  # noqa: ANN401 - any annotation.
        if get_origin(kind) is Literal:
            return [str(word) for word in get_args(kind)]
        return [word for inner in get_args(kind) for word in words(inner)]

    return words(_annotation(path))


def _annotation(path: toml.Path) -> Any:  # noqa: ANN401 - any annotation.
    """Of the innermost field of a struct on the way to a value."""
    annotation: Any = None
    kind: type[msgspec.Struct] = Scenario
    for name in (part for part in path if isinstance(part, str)):
        names = {field.encode_name: field.name for field in msgspec.structs.fields(kind)}
        if name not in names:
            break
        annotation = get_type_hints(kind)[names[name]]
        inner = toml.structs_in(annotation)
        if not inner:
            break
        kind = inner[0]
    return annotation
