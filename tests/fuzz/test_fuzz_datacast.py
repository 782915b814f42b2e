"""The datacast's fuzz target, shortly, with fixed seeds; `DATACAST_FUZZ` says how many packets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fuzz.fuzz_datacast import fuzz
from tests.support.datacast import needs_raptorq

COUNT = int(os.environ.get("DATACAST_FUZZ", "20000"))
pytestmark = needs_raptorq


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [1, 2])
def test_hostile_packets_between_the_genuine_ones_cost_no_block(tmp_path: Path, seed: int) -> None:
    report = fuzz(COUNT // 2, seed, tmp_path)
    assert report.hostile >= COUNT // 2
    assert report.blocks > COUNT // 2000
    # What is looked for was there.
    assert set(report.dropped) >= {
        "truncated", "oversized", "wrong-version", "malformed", "other-session",
        "bad-signature", "forged", "replayed", "bad-symbol", "duplicate",
    }  # fmt: skip
