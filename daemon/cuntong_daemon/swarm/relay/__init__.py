"""A node's own end of a shared link: every uTP packet passes through here (SPEC 10.9).

`relay` has the sockets and the thread. `downlink` decides when what came is acknowledged, `pacing` keeps a pace,
`delays` tells how long packets queue, `connections` whose they are, `utp` reads and writes their headers.
"""

from .relay import INSIDE, Order, Relay, RelayStatus

__all__ = ["INSIDE", "Order", "Relay", "RelayStatus"]
