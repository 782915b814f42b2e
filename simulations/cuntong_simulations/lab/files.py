"""Reading TOML into frozen structs: what isn't a field is refused, with the nearest one that is."""

from __future__ import annotations

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from cuntong_protocol.texts import N_

from .errors import LabFileError

T = TypeVar("T", bound=msgspec.Struct)

MAX_FILE_BYTES = 1024 * 1024
"""A topology of ten thousand nodes; a wrong file is refused before it is read."""


def load(path: Path, kind: type[T]) -> T:
    """Read a TOML file as a struct.

    Raises:
        LabFileError: `lab.file-unreadable`, `lab.file-not-toml`, `lab.unknown-key`, `lab.bad-value`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise LabFileError(
            "lab.file-unreadable",
            N_("{file} can't be read: {reason}."),
            file=str(path),
            reason=error.strerror or str(error),
        ) from error
    try:
        given = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise LabFileError(
            "lab.file-not-toml", N_("{file} isn't valid TOML: {reason}."),
            file=str(path), reason=str(error),
        ) from None  # fmt: skip
    return parse(given, kind, file=str(path))


def parse(given: dict[str, Any], kind: type[T], *, file: str) -> T:
    """Check tables against a struct; `file` is their name in errors.

    Raises:
        LabFileError: `lab.unknown-key`, `lab.bad-value`.
    """
    _check_keys(given, kind, file, "")
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        at = re.search(r"`\$\.?([^`]*)`", str(error))
        missing = re.search(r"missing required field `(\w+)`", str(error))
        key = ".".join(
            part for part in (at[1] if at else "", missing[1] if missing else "") if part
        )
        raise bad_value(file, key) from None


def bad_value(file: str, key: str) -> LabFileError:
    """A value that is there but wrong, or a key that has to be there."""
    return LabFileError(
        "lab.bad-value",
        N_("{file}: {key} is missing or has a value that can't be used."),
        file=file,
        key=key,
    )


def _check_keys(given: dict[str, Any], kind: type[msgspec.Struct], file: str, at: str) -> None:
    types = get_type_hints(kind)
    names = [field.encode_name for field in msgspec.structs.fields(kind)]
    for key, value in given.items():
        if key not in names:
            nearest = difflib.get_close_matches(key, names, n=1, cutoff=0.0)
            raise LabFileError(
                "lab.unknown-key",
                N_("{file}: {key} is not a known key; the nearest is {nearest}."),
                file=file,
                key=f"{at}{key}",
                nearest=nearest[0] if nearest else "-",
            )
        for inner in _structs(types[key]):
            for table in value if isinstance(value, list) else [value]:
                if isinstance(table, dict):
                    _check_keys(table, inner, file, f"{at}{key}.")


def _structs(kind: Any) -> list[type[msgspec.Struct]]:  # noqa: ANN401 - any annotation.
    """The struct in an annotation: itself, or what a list or an optional holds."""
    if get_origin(kind) is None:
        return [kind] if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else []
    return [found for inner in get_args(kind) for found in _structs(inner)]
