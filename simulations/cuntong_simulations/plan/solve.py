"""Solving a program with HiGHS, on one thread and with a fixed seed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

import highspy
import numpy as np
from numpy.typing import NDArray

from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_

from .errors import PlanError
from .program import Program

Floats = NDArray[np.float64]
Tell = Callable[[float, float], None]
"""Called now and then with the seconds that are gone and the gap (infinite: no plan yet)."""


class Status(Enum):
    """How it ended: within the gap, at the end of the time, proven impossible, or without any answer."""

    OPTIMAL = "optimal"
    TIME = "time"
    INFEASIBLE = "infeasible"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Solution:
    """What the solver found.

    Attributes:
        x: Of each column; empty without a solution.
        bound: Nothing is cheaper than this.
        gap: Relative, between `cost` and `bound`.
    """

    status: Status
    x: Floats
    cost: float
    bound: float
    gap: float
    seconds: float

    @classmethod
    def none(cls, status: Status = Status.INFEASIBLE) -> Solution:
        """Nothing was found."""
        return cls(status, np.zeros(0), math.inf, math.inf, 0.0, 0.0)


def solve(
    program: Program,
    *,
    seconds: float,
    gap: float = 0.0,
    is_relaxed: bool = False,
    tell: Tell | None = None,
    start: Mapping[int, float] | None = None,
    within: Mapping[int, tuple[float, float]] | None = None,
) -> Solution:
    """Minimise.

    Args:
        program: Isn't changed.
        seconds: At most so long.
        gap: Relative gap that is good enough.
        is_relaxed: Integers may be fractions: the linear relaxation, a lower bound.
        tell: Is told how it gets on.
        start: Columns of a solution that is known, the rest follows.
        within: Other bounds of some columns.

    Raises:
        PlanError: `sim.plan-solver`: the solver failed; a bug.
    """
    began = time.perf_counter()
    highs = highspy.Highs()  # type: ignore[no-untyped-call]  # It has no types.
    options = {
        "output_flag": False, "threads": 1, "random_seed": 1, "time_limit": float(seconds), "mip_rel_gap": gap,
    }  # fmt: skip
    for name, value in options.items():
        highs.setOptionValue(name, value)
    highs.passModel(_model(program, is_relaxed))
    for column, (lower, upper) in (within or {}).items():
        highs.changeColBounds(column, lower, upper)
    if start:
        highs.setSolution(
            len(start), np.array([*start], np.int32), np.array([*start.values()], np.float64)
        )
    if tell is not None and not is_relaxed:
        highs.cbMipLogging.subscribe(
            lambda event: tell(time.perf_counter() - began, event.data_out.mip_gap)
        )
    highs.run()
    status = highs.getModelStatus()
    info = highs.getInfo()
    is_found = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    known = {
        highspy.HighsModelStatus.kOptimal: Status.OPTIMAL,
        highspy.HighsModelStatus.kInfeasible: Status.INFEASIBLE,
        highspy.HighsModelStatus.kTimeLimit: Status.TIME if is_found else Status.UNKNOWN,
        highspy.HighsModelStatus.kModelEmpty: Status.OPTIMAL,
    }
    if status not in known:
        raise PlanError(
            "sim.plan-solver",
            N_("The solver gave up: {reason}."),
            fault=Fault.OURS,
            reason=highs.modelStatusToString(status),
        )
    cost = info.objective_function_value if is_found else math.inf
    has_bound = not is_relaxed and any(part.any() for part in program.is_integer)
    bound = info.mip_dual_bound if has_bound else cost
    return Solution(
        known[status],
        np.array(highs.getSolution().col_value) if is_found else np.zeros(0),
        cost,
        bound,
        (cost - bound) / abs(cost) if is_found and cost else 0.0,
        time.perf_counter() - began,
    )


def _model(program: Program, is_relaxed: bool) -> highspy.HighsModel:
    model = highspy.HighsModel()
    lp = model.lp_
    lp.num_col_, lp.num_row_ = program.column_count, program.row_count
    lp.col_cost_ = _joined(program.cost)
    lp.col_lower_, lp.col_upper_ = _joined(program.lower), _joined(program.upper)
    lp.row_lower_, lp.row_upper_ = _joined(program.row_lower), _joined(program.row_upper)
    rows = np.concatenate([entry[0] for entry in program.entries])
    columns = np.concatenate([entry[1] for entry in program.entries])
    values = np.concatenate([entry[2] for entry in program.entries])
    order = np.lexsort((rows, columns))
    rows, columns, values = rows[order], columns[order], values[order]
    # Places that are treated alike share a column, and each adds to its rows.
    begins = np.ones(len(rows), np.bool_)
    begins[1:] = (rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1])
    first = np.flatnonzero(begins)
    rows, columns, values = rows[first], columns[first], np.add.reduceat(values, first)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    starts = np.zeros(program.column_count + 1, np.int32)
    np.cumsum(np.bincount(columns, minlength=program.column_count), out=starts[1:])
    lp.a_matrix_.start_ = starts
    lp.a_matrix_.index_ = rows.astype(np.int32)
    lp.a_matrix_.value_ = values
    if not is_relaxed:
        integer, continuous = highspy.HighsVarType.kInteger, highspy.HighsVarType.kContinuous
        kinds = (continuous, integer)
        lp.integrality_ = [kinds[one] for one in np.concatenate(program.is_integer).tolist()]
    return model


def _joined(parts: list[Floats]) -> Floats:
    return np.concatenate(parts) if parts else np.zeros(0)
