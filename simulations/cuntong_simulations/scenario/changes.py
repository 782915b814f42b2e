"""What a scenario says otherwise for one run: `tier.village.dish=10 %`."""

from __future__ import annotations

import tomllib
from typing import Any

from cuntong_protocol.texts import N_
from cuntong_simulations.toml import Path, nearest

from .errors import ScenarioError

NAMES = ("tier", "name")
"""Keys by whose values the entries of a list are called."""


def change(given: dict[str, Any], key: str, value: str) -> Path:
    """Set one value in a scenario's tables.

    Args:
        given: As read from TOML.
        key: Names with dots; an entry of a list by its tier, its name, or its number from 1.
        value: As in TOML; quotation marks may be left out.

    Returns:
        Where it stands now.

    Raises:
        ScenarioError: `sim.no-such-entry`, `sim.whole-entry`.
    """
    *above, last = key.split(".")
    at: Any = given
    path: Path = ()
    for name in above:
        if isinstance(at, list):
            place = _entry(at, key, name)
            at, path = at[place], (*path, place)
        else:
            # A table that isn't there yet is begun; what it lacks is told when it is read.
            at, path = at.setdefault(name, {}), (*path, name)
        if not isinstance(at, dict | list):
            raise _no_entry(key, name, [])
    if not isinstance(at, dict):
        _entry(at, key, last)
        raise ScenarioError(
            "sim.whole-entry",
            N_("{key} isn't a single value; name one of those below it."),
            key=key,
        )
    at[last] = _value(value)
    return (*path, last)


def _entry(entries: list[Any], key: str, name: str) -> int:
    for place, known in enumerate(_names(entries)):
        if name == known:
            return place
    if name.isascii() and name.isdigit() and 0 < int(name) <= len(entries):
        return int(name) - 1
    raise _no_entry(key, name, _names(entries))


def _names(entries: list[Any]) -> list[str]:
    return [
        next((str(entry[word]) for word in NAMES if word in entry), str(place))
        for place, entry in enumerate(entries, 1)
        if isinstance(entry, dict)
    ]


def _no_entry(key: str, name: str, known: list[str]) -> ScenarioError:
    return ScenarioError(
        "sim.no-such-entry",
        N_("{key}: there is no {name} there; the nearest is {nearest}."),
        key=key,
        name=name,
        nearest=nearest(name, known),
    )


def _value(text: str) -> Any:  # noqa: ANN401 - whatever TOML has.
    try:
        found = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return found["value"] if len(found) == 1 else text
