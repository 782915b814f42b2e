"""Reading a scenario: what it extends, which key is unknown, which value can't be, each with file and line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from cuntong_protocol.texts import N_
from cuntong_simulations import toml

from .changes import change
from .checks import check
from .errors import ScenarioError
from .origin import Origin
from .scenario import Scenario
from .units import Quantity, UnitError

MAX_FILE_BYTES = 1024 * 1024
"""Ten thousand releases; what is larger isn't a scenario."""
MAX_EXTENDS = 16
"""Nobody follows a longer chain of files."""
Places = dict[toml.Path, tuple[str, int]]


def load(path: Path, settings: Mapping[str, str] | None = None) -> Scenario:
    """Read a scenario, and all that it extends, and check it.

    The files that it names stand in it as they are found from here, whichever file named them.

    Args:
        path: The file.
        settings: Values that it is to have instead of its own, by key, as in `changes.change`.

    Raises:
        ScenarioError: with file, line and reason.
    """
    given, places = _read(path, ())
    for key, value in (settings or {}).items():
        places[change(given, key, value)] = (f"--set {key}", 1)
    origin = Origin(str(path), places)
    scenario = _convert(given, origin)
    check(scenario, origin)
    return scenario


def _read(path: Path, above: tuple[Path, ...]) -> tuple[dict[str, Any], Places]:
    """A file's tables over those of the file that it extends, and where everything stands."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise ScenarioError(
                "sim.file-too-large", N_("{file} is too large for a scenario."), file=str(path)
            )
        # A file from Windows may begin with a byte order mark.
        decoded = text.decode("utf-8-sig").replace("\r\n", "\n")
        given = tomllib.loads(decoded)
    except OSError as error:
        raise ScenarioError(
            "sim.file-unreadable",
            N_("{file} can't be read: {reason}."),
            file=str(path),
            reason=error.strerror or str(error),
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _not_toml(path, error) from None
    places: Places = {place: (str(path), line) for place, line in toml.lines(decoded).items()}
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
    chain = (*above, path.resolve())
    if target.resolve() in chain or len(chain) > MAX_EXTENDS:
        raise origin.refusal(
            ("extends",),
            "sim.extends-circle",
            N_("{file}, line {line}: {base} extends this file in turn."),
            base=base,
        )
    if not target.is_file():
        raise origin.refusal(
            ("extends",),
            "sim.extends-missing",
            N_("{file}, line {line}: there is no file {base} that could be extended."),
            base=str(target),
        )
    under, under_places = _read(target, chain)
    _merge(under, given, under_places, places, ())
    return under, under_places


def _find_files(given: dict[str, Any], folder: Path) -> None:
    """Make the names of files independent of the file that they stand in."""
    releases = given.get("release")
    for table in (given.get("places"), *(releases if isinstance(releases, list) else ())):
        if isinstance(table, dict) and isinstance(table.get("file"), str) and table["file"]:
            table["file"] = str(folder / table["file"])


def _merge(
    under: dict[str, Any],
    over: dict[str, Any],
    under_places: Places,
    over_places: Places,
    at: toml.Path,
) -> None:
    """Tables are merged key by key; everything else, lists too, is replaced."""
    for key, value in over.items():
        path = (*at, key)
        if isinstance(value, dict) and isinstance(under.get(key), dict):
            _merge(under[key], value, under_places, over_places, path)
            continue
        under[key] = value
        for places in [place for place in under_places if place[: len(path)] == path]:
            del under_places[places]
        under_places.update(
            (place, where) for place, where in over_places.items() if place[: len(path)] == path
        )


def _not_toml(path: Path, error: Exception) -> ScenarioError:
    line = re.search(r"at line ([0-9]+)", str(error))
    return ScenarioError(
        "sim.file-not-toml",
        N_("{file}, line {line}: this isn't valid TOML ({reason})."),
        file=str(path),
        line=int(line[1]) if line else 1,
        reason=str(error),
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
    try:
        return msgspec.convert(given, Scenario, dec_hook=_quantity)
    except msgspec.ValidationError as error:
        raise _refusal(error, origin) from None


def _quantity(kind: type, given: object) -> Quantity:
    if not issubclass(kind, Quantity):  # pragma: no cover - a field of a kind that nobody reads.
        raise NotImplementedError
    return kind.of(given)


def _refusal(error: msgspec.ValidationError, origin: Origin) -> ScenarioError:
    """What msgspec found, in a planner's words."""
    text = str(error)
    place = re.search(r" - at `(?:key in )?\$\.?([^`]*)`", text)
    path = toml.parsed(place[1].replace("[...]", "")) if place else ()
    cause = error.__cause__
    if isinstance(cause, UnitError):
        return origin.refusal(path, cause.code, cause.template, **cause.params)
    if missing := re.search(r"missing required field `(\w+)`", text):
        return origin.refusal(
            (*path, missing[1]), "sim.missing-key", N_("{file}, line {line}: {key} is missing.")
        )
    if word := re.search(r"Invalid enum value '([^']*)'", text):
        known = _words_at(path)
        return origin.refusal(
            path,
            "sim.unknown-word",
            N_("{file}, line {line}: {key} can't be {value}; the nearest that it can be is {nearest}."),
            value=word[1],
            nearest=toml.nearest(word[1], known),
        )  # fmt: skip
    if bound := re.search(r"Expected `(?:int|float|array)` (of length )?([<>]=?) ([0-9.]+)", text):
        template = (
            N_("{file}, line {line}: {key} has to have at least {bound} entries.")
            if bound[1]
            else N_("{file}, line {line}: {key} has to be at least {bound}.")
            if ">" in bound[2]
            else N_("{file}, line {line}: {key} may be {bound} at most.")
        )
        return origin.refusal(path, "sim.out-of-bounds", template, bound=bound[3])
    wanted = re.search(r"Expected `([^`]*)`", text)
    names = {
        "int": N_("{file}, line {line}: {key} has to be a whole number."),
        "float": N_("{file}, line {line}: {key} has to be a number."),
        "array": N_("{file}, line {line}: {key} has to be a list, in square brackets."),
        "object": N_("{file}, line {line}: {key} has to be a table."),
        "date": N_("{file}, line {line}: {key} has to be a day such as 2027-03-01."),
    }
    template = names.get(
        wanted[1] if wanted else "", N_("{file}, line {line}: {key} has to be a text, in quotation marks.")
    )  # fmt: skip
    return origin.refusal(path, "sim.wrong-kind", template)


def _words_at(path: toml.Path) -> list[str]:
    """The words that a field of literals may have."""

    def words(kind: Any) -> list[str]:  # noqa: ANN401 - any annotation.
        if get_origin(kind) is Literal:
            return [str(word) for word in get_args(kind)]
        return [word for inner in get_args(kind) for word in words(inner)]

    kind: type[msgspec.Struct] = Scenario
    for name in (part for part in path if isinstance(part, str)):
        names = {field.encode_name: field.name for field in msgspec.structs.fields(kind)}
        if name not in names:
            break
        annotation = get_type_hints(kind)[names[name]]
        inner = toml.structs_in(annotation)
        if not inner:
            return words(annotation)
        kind = inner[0]
    return []
