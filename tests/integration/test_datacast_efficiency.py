"""The datacast's efficiency, small and on a counted clock: a change that wastes the satellite's time is seen here.

The whole measurement, beside other programs, is `python -m tests.benchmarks datacast`. Here a bundle of two blocks goes to
two receivers; its manifest and the programme weigh more in it than in a bundle worth casting, so the limits are lower than
the goals there, and have room for another choice of what is lost.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cuntong_protocol.datacast.packets import IP_BYTES, PACKET_BYTES
from tests.benchmarks.datacast import (
    MIB,
    OVERHEAD_GOAL,
    Content,
    Outcome,
    cast_counted,
    make_content,
    overhead,
)
from tests.support.datacast import needs_raptorq

pytestmark = needs_raptorq

BUNDLE_BYTES = 8 * MIB
RECEIVERS = 2
DECODES = 150


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Content:
    return make_content(tmp_path_factory.mktemp("content"), size=BUNDLE_BYTES)


def cast(content: Content, folder: Path, loss: float) -> Outcome:
    return cast_counted(content, folder, loss=loss, receivers=RECEIVERS)


@pytest.mark.parametrize(
    ("loss", "least", "most_beyond"), [(0.0, 0.940, 0.005), (0.05, 0.880, 0.020), (0.2, 0.735, 0.025)]
)  # fmt: skip
def test_satellite_time_goes_into_the_file_and_not_into_what_nobody_needs(
    content: Content, tmp_path: Path, loss: float, least: float, most_beyond: float
) -> None:
    outcome = cast(content, tmp_path, loss)
    shares = outcome.shares()
    assert sum(shares.values()) == pytest.approx(1.0)
    assert outcome.ratio == pytest.approx(shares["file"])
    assert outcome.ratio >= least, shares
    assert shares["sent beyond that"] <= most_beyond, shares
    # Headers, digests: what the formats cost.
    packet = PACKET_BYTES + IP_BYTES
    assert shares["headers of content"] / (
        outcome.sent["content"] / sum(outcome.sent.values())
    ) == (pytest.approx(48 / packet))
    assert shares["digests"] <= 0.0135
    assert shares["beacon"] <= 0.001
    assert shares["catalogue"] <= 0.003
    # 512 hashes of pieces, before each pass.
    assert shares["manifest"] <= 0.005
    # The modem never waited for an encoder.
    assert outcome.sent["fillers"] == 0
    if not loss:
        assert outcome.tries == 0
    assert outcome.tries <= outcome.blocks + 1


def test_blocks_need_hardly_a_symbol_more_than_they_have(tmp_path: Path) -> None:
    found = overhead(tmp_path, decodes=DECODES)
    assert found.decodes == DECODES
    assert found.mean <= OVERHEAD_GOAL
    assert max(found.counts) <= 2
