"""Real places instead of generated ones: codes, and what is known of them, from CSV or Parquet."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cuntong_protocol.divisions import DivisionError, Tier, parse_division
from cuntong_protocol.texts import N_

from .rows import broken, cell, read_rows
from .scenario import Scenario
from .units import Quantity, Rate, Size, half_width, shown

THIN_TIERS = ("township", "village")
THIN_MOST_BYTES_S = 10e9 / 8
"""No township or village has more than 10 Gbit/s: a slip in the unit."""
_YES = frozenset(("1", "yes", "true", "y", "是", "有"))
_ROUNDED = re.compile(r"[0-9]+([.,][0-9]+)?[eE]\+?[0-9]+", re.ASCII)
_NO = frozenset(("0", "no", "false", "n", "否", "无"))


@dataclass(frozen=True, slots=True)
class Listed:
    """The places of a file, in its order.

    Attributes:
        path: For errors.
        line: Of each.
        code: Division code in an integer.
        tier: 0 to 5.
        down_bytes_s, up_bytes_s, store_bytes: NaN: not said.
        dish: 1 and 0; -1: not said.
    """

    path: Path
    line: NDArray[np.int64]
    code: NDArray[np.int64]
    tier: NDArray[np.int8]
    down_bytes_s: NDArray[np.float64]
    up_bytes_s: NDArray[np.float64]
    store_bytes: NDArray[np.float64]
    dish: NDArray[np.int8]


def listed_places(scenario: Scenario) -> Listed | None:
    """What the scenario's file of places says; None: it names none.

    Raises:
        ScenarioError: with file, line and reason.
    """
    if scenario.places is None:
        return None
    path = Path(scenario.places.file)
    tiers = {tier.tier for tier in scenario.tiers}
    seen: dict[str, int] = {}
    found: list[tuple[int, int, int, float, float, float, int]] = []

    @cache
    def quantity(kind: type[Quantity], column: str, given: str) -> float:
        return cell(kind, path, line, column, given) if given else np.nan

    for line, cells in read_rows(
        path, required=("code",), optional=("name", "down", "up", "dish", "store")
    ):
        try:
            code = parse_division(half_width(cells["code"]))
        except DivisionError:
            template = (
                N_("{file}, line {line}: {code} has lost digits in a spreadsheet; format the column of codes as text there.")
                if _ROUNDED.fullmatch(cells["code"])
                else N_("{file}, line {line}: {code} isn't a division code.")
            )  # fmt: skip
            raise broken(path, line, template, code=shown(cells["code"])) from None
        if code.tier.label not in tiers:
            raise broken(
                path,
                line,
                N_("{file}, line {line}: {code} is a {tier}, a tier that the scenario doesn't have."),
                code=code,
                tier=code.tier.label,
            )  # fmt: skip
        if code in seen:
            raise broken(
                path,
                line,
                N_("{file}, line {line}: {code} stands in line {other} already."),
                code=code,
                other=seen[code],
            )
        seen[str(code)] = line
        down = quantity(Rate, "down", cells.get("down", ""))
        up = quantity(Rate, "up", cells.get("up", ""))
        if (down == 0) != (up == 0) and not np.isnan(down + up):
            raise broken(
                path,
                line,
                N_("{file}, line {line}: a link has a rate down and a rate up; without a link both are 0."),
            )  # fmt: skip
        for key, rate in (("down", down), ("up", up)):
            if code.tier.label in THIN_TIERS and rate > THIN_MOST_BYTES_S:
                raise broken(
                    path,
                    line,
                    N_("{file}, line {line}: {key} makes no sense: no {tier} has more than 10 Gbit/s."),
                    key=key,
                    tier=code.tier.label,
                )  # fmt: skip
        dish = cells.get("dish", "").lower()
        if dish and dish not in _YES | _NO:
            raise broken(
                path,
                line,
                N_("{file}, line {line}: dish has to be yes or no, not {value}."),
                value=shown(dish),
            )
        store = quantity(Size, "store", cells.get("store", ""))
        if store == 0:
            raise broken(path, line, N_("{file}, line {line}: {key} can't be zero."), key="store")
        has_dish = -1 if not dish else int(dish in _YES)
        found.append((line, int(code), int(code.tier), down, up, store, has_dish))
    if not found:
        raise broken(path, 1, N_("{file}, line {line}: there is no place in it."))
    columns = list(zip(*found, strict=True))
    return Listed(
        path,
        np.array(columns[0], dtype=np.int64),
        np.array(columns[1], dtype=np.int64),
        np.array(columns[2], dtype=np.int8),
        np.array(columns[3], dtype=np.float64),
        np.array(columns[4], dtype=np.float64),
        np.array(columns[5], dtype=np.float64),
        np.array(columns[6], dtype=np.int8),
    )


def check_tiers(scenario: Scenario, listed: Listed) -> None:
    """Generated places lie below listed ones, never above: their codes are made up.

    Raises:
        ScenarioError: a tier of the file has generated ones above it.
    """
    there = {int(tier) for tier in np.unique(listed.tier)} | {0}
    for tier in scenario.tiers:
        number = int(Tier[tier.tier.upper()])
        if number in there or tier.count == 0 or number > max(there):
            continue
        row = int(np.argmax(listed.tier > number))
        raise broken(
            listed.path,
            int(listed.line[row]),
            N_("{file}, line {line}: the file has places below the tier {tier}, but none of that tier itself."),
            tier=tier.tier,
        )  # fmt: skip
