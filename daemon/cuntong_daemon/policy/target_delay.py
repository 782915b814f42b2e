"""uTP's target delay: the queue that a transfer keeps standing on the slowest link it crosses (SPEC 10.4).

The less, the sooner the public's pages come; but a queue of less than about two packets runs empty between
acknowledgements. Measured at 512 kbit/s, where 1,500 bytes take 23 ms: 25 ms moves 30 % of the link, 40 ms
96 %, and more brings only delay; with 30 and 35 ms a village takes 8 and 4 % longer. So it is the time of 1.7 packets.

The sender keeps the queue, so the target counts on its side, and libtorrent has one for the session: a county's is
that of the slowest village it sends to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from cuntong_protocol.texts import N_, Sentence, sentence

PACKET_BYTES = 1500
PACKETS = 1.7
FLOOR_MS = 20
"""For fast links. Radio links, interleaving modems and busy PCs vary a packet's way by about 10 ms; with less than
twice that uTP takes the variation for a queue and slows down. Nobody feels 20 ms on a page."""
CEILING_MS = 200
"""For links below 102 kbit/s: more would be felt, and at that rate any transfer is."""
DEFAULT_MS = 100
"""libtorrent's own and RFC 6817's, where no link is known at all."""


@dataclass(frozen=True, slots=True)
class TargetDelay:
    """The target delay in ms, for this reason."""

    ms: int
    reason: Sentence


def serialisation_s(link_bytes_s: float) -> float:
    """How long one full packet occupies a link."""
    return PACKET_BYTES / link_bytes_s


def target_delay(link_rates_bytes_s: Iterable[int]) -> TargetDelay:
    """The session's target delay.

    Args:
        link_rates_bytes_s: Of every link that this node's own data crosses: its own upwards, and each child's
            downwards. 0 (unknown) doesn't count.
    """
    slowest = min((rate for rate in link_rates_bytes_s if rate > 0), default=0)
    if not slowest:
        return TargetDelay(
            DEFAULT_MS, sentence("target-delay.unknown", N_("The rate of no link is known."))
        )
    wanted = math.ceil(PACKETS * serialisation_s(slowest) * 1000)
    return TargetDelay(
        min(max(wanted, FLOOR_MS), CEILING_MS),
        sentence(
            "target-delay.slowest",
            N_("The slowest link carries {rate} kbit/s: a full packet takes {time} ms."),
            rate=slowest * 8 // 1000,
            time=round(serialisation_s(slowest) * 1000),
        ),
    )
