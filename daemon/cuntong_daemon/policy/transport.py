"""Who dials whom, and by which transport (SPEC 7.3).

uTP gives way to the public's traffic, TCP doesn't; on a fast link of its own TCP moves ten times as much. libtorrent's
choice is for the whole session, so **the lower end dials**: a shared link has uTP only, in both directions; a centre
dials upwards and sideways by TCP and accepts both, so that those below reach it by uTP.
"""

from __future__ import annotations

from dataclasses import dataclass

from cuntong_protocol.divisions import Tier
from cuntong_protocol.texts import N_, Sentence, sentence

THIN_BYTES_S = 125_000
"""1 Mbit/s. On a thinner link even of its own TCP keeps the modem's queue full, and what the control link and
the node's own acknowledgements have to wait for is a quarter of a second."""


@dataclass(frozen=True, slots=True)
class Transport:
    """What a session dials by and accepts, for this reason."""

    dials_utp: bool
    dials_tcp: bool
    accepts_utp: bool
    accepts_tcp: bool
    reason: Sentence


def is_shared_by_default(tier: Tier) -> bool:
    """Townships and villages share their link with the public who sit in the reading room."""
    return tier >= Tier.TOWNSHIP


def transport(*, is_shared: bool, link_bytes_s: int = 0) -> Transport:
    """How a node's session connects.

    Args:
        is_shared: Others use the link too.
        link_bytes_s: The slower direction of the link; 0 when unknown.
    """
    if is_shared:
        reason = sentence(
            "transport.shared", N_("The link is shared: uTP gives way to others, TCP doesn't.")
        )
    elif 0 < link_bytes_s < THIN_BYTES_S:
        reason = sentence(
            "transport.thin", N_("The link is thin: TCP would keep its queue full, uTP doesn't.")
        )
    else:
        return Transport(
            dials_utp=False,
            dials_tcp=True,
            accepts_utp=True,
            accepts_tcp=True,
            reason=sentence(
                "transport.own", N_("The link is its own: TCP moves more, uTP comes from below.")
            ),
        )
    return Transport(
        dials_utp=True, dials_tcp=False, accepts_utp=True, accepts_tcp=False, reason=reason
    )
