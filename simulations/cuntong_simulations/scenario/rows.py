"""Tables that a scenario names: CSV as spreadsheets write it (UTF-8 or GB18030), or Parquet."""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from cuntong_protocol.texts import N_
from cuntong_simulations import toml

from .errors import ScenarioError
from .units import Quantity, UnitError

MAX_FILE_BYTES = 512 * 1024 * 1024
"""A place takes 40 to 100 bytes: several million."""
Row = tuple[int, dict[str, str]]
"""The line in the file (of Parquet the row, from 1), and the cells by column; an empty cell is "" or isn't there."""


def read_rows(path: Path, *, required: Collection[str], optional: Collection[str]) -> Iterator[Row]:
    """The rows of a table, empty ones left out.

    Raises:
        ScenarioError: it can't be read, a column is missing or unknown, a row has too many or too few cells.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ScenarioError(
                "sim.file-too-large", N_("{file} is too large for a scenario."), file=str(path)
            )
        if path.suffix == ".parquet":
            yield from _parquet(path, required, optional)
            return
        data = path.read_bytes()
    except OSError as error:
        raise ScenarioError(
            "sim.file-unreadable",
            N_("{file} can't be read: {reason}."),
            file=str(path),
            reason=error.strerror or str(error),
        ) from error
    yield from _csv(_decoded(path, data), path, required, optional)


def broken(path: Path, line: int, reason: str, /, **params: str | int) -> ScenarioError:
    """A row that can't be used; `reason` is a template with `{file}` and `{line}`."""
    return ScenarioError("sim.broken-row", reason, fault=None, file=str(path), line=line, **params)


def cell(kind: type[Quantity], path: Path, line: int, column: str, given: str) -> float:
    """Read a cell with a unit.

    Raises:
        ScenarioError: with file and line.
    """
    try:
        return float(kind.of(given))
    except UnitError as error:
        raise ScenarioError(
            error.code,
            error.template,
            fault=None,
            file=str(path),
            line=line,
            key=column,
            **error.params,
        ) from None


def _decoded(path: Path, data: bytes) -> str:
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
    raise broken(path, line, N_("{file}, line {line}: this is neither UTF-8 nor GB18030."))


def _csv(text: str, path: Path, required: Collection[str], optional: Collection[str]) -> Iterator[Row]:  # fmt: skip
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] = []
    before = 0
    try:
        for cells in reader:
            line, before = before + 1, reader.line_num
            if not any(given.strip() for given in cells):
                continue
            if not columns:
                columns = [name.strip().lower() for name in cells]
                _check_columns(path, line, columns, required, optional)
                continue
            if len(cells) != len(columns):
                raise broken(
                    path,
                    line,
                    N_("{file}, line {line}: there are {found} cells instead of {wanted}."),
                    found=len(cells),
                    wanted=len(columns),
                )
            yield line, {name: given.strip() for name, given in zip(columns, cells, strict=True)}
    except csv.Error as error:
        raise broken(
            path, reader.line_num, N_("{file}, line {line}: {reason}."), reason=str(error)
        ) from None
    if not columns:
        _check_columns(path, 1, columns, required, optional)


def _parquet(path: Path, required: Collection[str], optional: Collection[str]) -> Iterator[Row]:
    # It is slow to import and has no types.
    pa: Any = importlib.import_module("pyarrow")
    parquet: Any = importlib.import_module("pyarrow.parquet")

    try:
        table = parquet.read_table(path)
    except pa.ArrowException as error:
        raise broken(path, 1, N_("{file}, line {line}: {reason}."), reason=str(error)) from None
    columns = [name.strip().lower() for name in table.column_names]
    _check_columns(path, 1, columns, required, optional)
    values = [column.to_pylist() for column in table.columns]
    for number, cells in enumerate(zip(*values, strict=True), 1):
        yield (
            number,
            {
                name: "" if given is None else str(given).strip()
                for name, given in zip(columns, cells, strict=True)
            },
        )


def _check_columns(
    path: Path, line: int, columns: list[str], required: Collection[str], optional: Collection[str]
) -> None:
    known = [*required, *optional]
    for name in columns:
        if name not in known:
            raise broken(
                path,
                line,
                N_("{file}, line {line}: {key} isn't a known column; the nearest is {nearest}."),
                key=name,
                nearest=toml.nearest(name, known),
            )
        if columns.count(name) > 1:
            raise broken(path, line, N_("{file}, line {line}: the column {key} is there twice."), key=name)  # fmt: skip
    for name in required:
        if name not in columns:
            raise broken(path, line, N_("{file}, line {line}: the column {key} is missing."), key=name)  # fmt: skip
