"""Reading TOML into frozen structs: what isn't a field is refused, with the nearest one that is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from cuntong_protocol.texts import N_
from cuntong_simulations import toml

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
    unknown = toml.unknown_key(given, kind)
    if unknown is not None:
        path, nearest = unknown
        raise LabFileError(
            "lab.unknown-key",
            N_("{file}: {key} is not a known key; the nearest is {nearest}."),
            file=file,
            key=".".join(part for part in path if isinstance(part, str)),
            nearest=nearest,
        )
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
