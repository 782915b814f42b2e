"""Other programs in the same laboratory. Nothing is installed by it; what isn't there is named."""

from __future__ import annotations

import importlib.util

from .base import Processes
from .rsync import RsyncCompressed, RsyncLimited, RsyncStar, RsyncTree, Stream
from .syncthing import Syncthing

CONTENDERS: dict[str, type[Processes]] = {
    "rsync-star": RsyncStar,
    "rsync-tree": RsyncTree,
    "rsync-z": RsyncCompressed,
    "rsync-limited": RsyncLimited,
    "syncthing": Syncthing,
    "iperf3": Stream,
}
"""By the name that the command knows them by."""

if importlib.util.find_spec("libtorrent") is not None:
    from .swarms import Aria2, PlainNear, PlainTracker, Transmission

    CONTENDERS |= {
        "transmission": Transmission,
        "aria2": Aria2,
        "libtorrent": PlainTracker,
        "libtorrent-near": PlainNear,
    }
