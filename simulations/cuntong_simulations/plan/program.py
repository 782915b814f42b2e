"""A mixed-integer program as it grows: columns, rows, coefficients."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from .capacity import Bools, Floats

Ints = NDArray[np.int64]


class Kind(IntEnum):
    """What a row of the program says; of those up to `BATCH` a planner can have more."""

    DOWN = 0
    UP = 1
    AIR = 2
    BATCH = 3
    COVER = 4
    OTHER = 5


@dataclass(slots=True)
class Program:
    """A mixed-integer program: minimise cost * x, lower <= x <= upper, row_lower <= A x <= row_upper.

    Attributes:
        kind: Of each row.
        subject: What a row is about: a place (nation: -1) of DOWN, UP and COVER; else -1.
        set_number: Of a row: the set in `Problem.sets[kind]`; of COVER the release.
    """

    cost: list[Floats] = field(default_factory=list)
    lower: list[Floats] = field(default_factory=list)
    upper: list[Floats] = field(default_factory=list)
    is_integer: list[Bools] = field(default_factory=list)
    row_lower: list[Floats] = field(default_factory=list)
    row_upper: list[Floats] = field(default_factory=list)
    kind: list[Ints] = field(default_factory=list)
    subject: list[Ints] = field(default_factory=list)
    set_number: list[Ints] = field(default_factory=list)
    entries: list[tuple[Ints, Ints, Floats]] = field(default_factory=list)
    column_count: int = 0
    row_count: int = 0

    def columns(
        self,
        count: int,
        cost: float | Floats,
        *,
        lower: float | Floats = 0.0,
        upper: float | Floats = math.inf,
        is_integer: bool = False,
    ) -> Ints:
        """Add columns and return their numbers."""
        self.cost.append(np.broadcast_to(np.asarray(cost, float), count))
        self.lower.append(np.broadcast_to(np.asarray(lower, float), count))
        self.upper.append(np.broadcast_to(np.asarray(upper, float), count))
        self.is_integer.append(np.full(count, is_integer))
        self.column_count += count
        return np.arange(self.column_count - count, self.column_count)

    def rows(
        self,
        count: int,
        kind: Kind,
        *,
        lower: float | Floats = -math.inf,
        upper: float | Floats = math.inf,
        subject: int | Ints = -1,
        set_number: int | Ints = -1,
    ) -> Ints:
        """Add rows and return their numbers."""
        self.row_lower.append(np.broadcast_to(np.asarray(lower, float), count))
        self.row_upper.append(np.broadcast_to(np.asarray(upper, float), count))
        self.kind.append(np.full(count, int(kind)))
        self.subject.append(np.broadcast_to(np.asarray(subject), count))
        self.set_number.append(np.broadcast_to(np.asarray(set_number), count))
        self.row_count += count
        return np.arange(self.row_count - count, self.row_count)

    def put(self, rows: int | Ints, columns: int | Ints, values: float | Floats) -> None:
        """Put coefficients; those of one place are added up."""
        row, column, value = np.broadcast_arrays(rows, columns, np.asarray(values, float))
        self.entries.append((row.ravel(), column.ravel(), value.ravel()))

    def times(self, x: Floats) -> Floats:
        """A x: what each row comes to."""
        found = np.zeros(self.row_count)
        for rows, columns, values in self.entries:
            np.add.at(found, rows, values * x[columns])
        return found
