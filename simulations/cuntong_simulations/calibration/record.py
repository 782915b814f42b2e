"""`calibration.toml`: the model's parameters, and how well they were measured."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from cuntong_protocol.texts import N_
from cuntong_simulations.scenario.errors import ScenarioError
from cuntong_simulations.scenario.scenario import Calibration
from cuntong_simulations.scenario.units import Quantity, Rate, Share, Span, UnitError

SHIPPED_FILE = Path(__file__).with_name("calibration.toml")
"""The one that comes with the program."""
MAX_FILE_BYTES = 64 * 1024
"""Fifty times what it needs."""
_Count = Annotated[int, msgspec.Meta(ge=0, le=10_000)]
_Error = Annotated[float, msgspec.Meta(ge=0, le=1_000)]


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Where parameters come from. Errors are relative, over the networks to which nothing was fitted.

    Attributes:
        date: When the last measurement was made.
        networks: All of them; `tested` are those to which nothing was fitted.
        repeats: On each network.
        mean_error_median, mean_error_largest: Of the mean times of tiers.
        last_error_median, last_error_largest: Of the times of each tier's last place.
        versions: Of the programs.
    """

    date: date
    networks: _Count
    tested: _Count
    repeats: _Count
    mean_error_median: _Error
    mean_error_largest: _Error
    last_error_median: _Error
    last_error_largest: _Error
    versions: dict[str, str] = {}


class _Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[parameters]`: here none may be missing."""

    efficiency: Share
    thin: Rate
    startup: Span
    eta: Share
    phi: Share


PARAMETERS: tuple[str, ...] = _Parameters.__struct_fields__
"""Names, as in `Calibration`."""


class _File(msgspec.Struct, frozen=True, kw_only=True):
    version: Literal[1]
    parameters: _Parameters
    measured: Measured | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What such a file says.

    Attributes:
        parameters: All of them.
        measured: None: not with real daemons.
    """

    parameters: Calibration
    measured: Measured | None = None


def read(path: Path) -> Record:
    """Read one.

    Raises:
        ScenarioError: `sim.file-unreadable`, `sim.bad-calibration`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ScenarioError(
            "sim.file-unreadable",
            N_("{file} can't be read: {reason}."),
            file=str(path),
            reason=error.strerror or str(error),
        ) from error
    try:
        found = msgspec.convert(_tables(data), _File, dec_hook=_quantity)
    except ValueError as error:  # Also of decoding, of TOML and of msgspec.
        raise ScenarioError(
            "sim.bad-calibration",
            N_("{file} isn't a calibration that can be used: {reason}."),
            file=str(path),
            reason=str(error),
        ) from None
    values = msgspec.structs.asdict(found.parameters)
    return Record(parameters=Calibration(**values), measured=found.measured)


def _tables(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"more than {MAX_FILE_BYTES} bytes")
    # A file from Windows may begin with a byte order mark.
    return tomllib.loads(data.decode("utf-8-sig").replace("\r\n", "\n"))


def text(record: Record) -> str:
    """What `read` reads."""
    return "\n".join(_lines(record)) + "\n"


def _lines(record: Record) -> Iterator[str]:
    yield "# Written by `cuntong sim calibrate`; the parameters are those of simulations/MODEL.md, section 9."
    yield "version = 1"
    yield "\n[parameters]"
    for name in PARAMETERS:
        value = getattr(record.parameters, name)
        if isinstance(value, Rate):
            yield f'{name} = "{value * 8e-3:.6g} kbit/s"'
        elif isinstance(value, Span):
            yield f'{name} = "{value:.6g} s"'
        else:
            yield f"{name} = {value:.6g}"
    if record.measured is None:
        return
    values = msgspec.structs.asdict(record.measured)
    versions = values.pop("versions")
    yield "\n# Errors are relative, over the networks to which nothing was fitted: tier means, and last places."
    yield "[measured]"
    for name, value in values.items():
        yield f"{name} = {value:.4g}" if isinstance(value, float) else f"{name} = {value}"
    yield "\n[measured.versions]"
    for name, value in versions.items():
        yield f"{name} = {msgspec.json.encode(value).decode()}"


def _quantity(kind: type, given: Any) -> Quantity:  # noqa: ANN401 - msgspec's hook.
    if not issubclass(kind, Quantity):  # pragma: no cover - a field of a kind that nobody reads.
        raise NotImplementedError
    try:
        return kind.of(given)
    except UnitError:
        raise ValueError(f"{given!r} isn't a value from 0 to {kind.most_text}") from None
