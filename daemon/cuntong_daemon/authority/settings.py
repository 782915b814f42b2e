"""`authority.toml`: what an authority's tools must know that isn't in its signed metadata."""

from __future__ import annotations

import datetime as dt
import json

import msgspec

from cuntong_protocol.divisions import Division, DivisionError


class Endorsement(msgspec.Struct, frozen=True):
    """The parent's word for this authority, as its last response file said.

    Attributes:
        parent: Who endorsed it.
        epoch: See SPEC 4.5.
        until: Last day.
    """

    parent: str
    epoch: int
    until: dt.date


class Settings(msgspec.Struct, frozen=True):
    """The content of `authority.toml`.

    Attributes:
        code: Division code.
        name: For people.
        keys: Name of a key (`root-1`, `targets`, `ca`, …) -> its key id.
        endorsement: None for the nation, and before `cuntong authority install`.
    """

    code: Division
    name: str
    keys: dict[str, str]
    endorsement: Endorsement | None = None


def encode_settings(settings: Settings) -> bytes:
    """As TOML."""
    lines = [
        "# Written by `cuntong authority`; the keys themselves are on the sticks.",
        f"code = {_quoted(settings.code)}",
        f"name = {_quoted(settings.name)}",
        "",
        "[keys]",
        *(f"{_quoted(name)} = {_quoted(key)}" for name, key in settings.keys.items()),
    ]
    if settings.endorsement is not None:
        lines += [
            "",
            "[endorsement]",
            f"parent = {_quoted(settings.endorsement.parent)}",
            f"epoch = {settings.endorsement.epoch}",
            f"until = {settings.endorsement.until.isoformat()}",
        ]
    return ("\n".join(lines) + "\n").encode()


def decode_settings(data: bytes) -> Settings:
    """Read it back.

    Raises:
        ValueError: It was damaged.
    """
    return msgspec.toml.decode(data, type=Settings, dec_hook=_division)


def _division(_kind: type, value: object) -> Division:
    try:
        return Division(str(value))
    except DivisionError as error:
        raise ValueError(str(error)) from None


def _quoted(text: str) -> str:
    # A JSON string of printable characters is a TOML basic string.
    return json.dumps(str(text), ensure_ascii=False)
