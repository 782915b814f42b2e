"""A node's own end of a shared link: every uTP packet passes through here (SPEC 10.9).

`pacing` decides when a packet may leave, `delays` how long packets queue, `relay` has the sockets.
"""

from .relay import INSIDE, Order, Relay, RelayStatus

__all__ = ["INSIDE", "Order", "Relay", "RelayStatus"]
