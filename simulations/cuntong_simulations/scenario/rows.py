"""Tables that a scenario names: CSV as spreadsheets write it (UTF-8 or GB18030), or Parquet."""

from __future__ import annotations

import codecs
import csv
import importlib
import io
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from cuntong_protocol.texts import N_
from cuntong_simulations import toml

from .errors import ScenarioError
from .files import contents
from .units import Quantity, UnitError, shown

MAX_FILE_BYTES = 512 * 1024 * 1024
"""A place takes 40 to 100 bytes: several million."""
MAX_ROWS = 2_000_000
"""China has some 700,000 places down to the villages."""
_PARQUET_BEGIN = b"PAR1"
Row = tuple[int, dict[str, str]]
"""The line in the file (of Parquet the row, from 1), and the cells by column; an empty cell is "" or isn't there."""


def read_rows(path: Path, *, required: Collection[str], optional: Collection[str]) -> Iterator[Row]:
    """The rows of a table, empty ones left out. What it is, CSV or Parquet, is seen by its first bytes.

    Raises:
        ScenarioError: it can't be read, a column is missing or unknown, a row has too many or too few cells.
    """
    data = contents(path, MAX_FILE_BYTES)
    rows = (
        _parquet(data, path, required, optional)
        if data.startswith(_PARQUET_BEGIN)
        else _csv(_decoded(path, data), path, required, optional)
    )
    for count, row in enumerate(rows):
        if count == MAX_ROWS:
            raise broken(
                path,
                row[0],
                N_("{file}, line {line}: {most} rows are the most that are read."),
                most=MAX_ROWS,
            )
        yield row


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
    has_mark = data.startswith(codecs.BOM_UTF8)
    data = data.removeprefix(codecs.BOM_UTF8)
    for encoding in ("utf-8",) if has_mark else ("utf-8", "gb18030"):
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
                columns = _columns(path, line, cells, required, optional)
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
    except csv.Error:
        # A quotation mark that isn't closed takes all that follows for one cell: the line is where its row begins.
        raise broken(
            path,
            before + 1,
            N_("{file}, line {line}: the quotation marks don't match, or a cell has more than {most} characters."),
            most=csv.field_size_limit(),
        ) from None  # fmt: skip
    if not columns:
        _columns(path, 1, [], required, optional)


def _parquet(
    data: bytes, path: Path, required: Collection[str], optional: Collection[str]
) -> Iterator[Row]:
    # It is slow to import and has no types.
    pa: Any = importlib.import_module("pyarrow")
    parquet: Any = importlib.import_module("pyarrow.parquet")

    number = 0
    try:
        file = parquet.ParquetFile(pa.BufferReader(data))
        columns = _columns(path, 1, file.schema_arrow.names, required, optional)
        for batch in file.iter_batches():
            for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                number += 1
                yield (
                    number,
                    {name: _text(given) for name, given in zip(columns, cells, strict=True)},
                )
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        raise broken(
            path,
            number + 1,
            N_("{file}, line {line}: from here on this isn't a Parquet file that can be read."),
        ) from None


def _text(given: object) -> str:
    """A cell of Parquet as CSV has it; tables with gaps keep whole numbers as floats, and gaps as NaN."""
    if given is None or given != given:
        return ""
    if isinstance(given, float) and given.is_integer():
        return str(int(given))
    return str(given).strip()


def _columns(
    path: Path,
    line: int,
    names: Sequence[str],
    required: Collection[str],
    optional: Collection[str],
) -> list[str]:
    """The names of the columns, checked."""
    columns = [name.strip().lower() for name in names]
    known = [*required, *optional]
    if len(columns) == 1 and any(sign in columns[0] for sign in ";\t，"):
        raise broken(path, line, N_("{file}, line {line}: columns have to be separated by commas."))
    for name in columns:
        if not name:
            raise broken(path, line, N_("{file}, line {line}: a column has no name."))
        if name not in known:
            raise broken(
                path,
                line,
                N_("{file}, line {line}: {key} isn't a known column; the nearest is {nearest}."),
                key=shown(name),
                nearest=toml.nearest(name, known),
            )
        if columns.count(name) > 1:
            raise broken(path, line, N_("{file}, line {line}: the column {key} is there twice."), key=name)  # fmt: skip
    for name in required:
        if name not in columns:
            raise broken(path, line, N_("{file}, line {line}: the column {key} is missing."), key=name)  # fmt: skip
    return columns
