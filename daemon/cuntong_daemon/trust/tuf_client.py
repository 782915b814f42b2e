"""python-tuf's client, without the HTTP client that it brings: 2 MB that a node has better uses for (DESIGN 12)."""

from __future__ import annotations

from types import ModuleType

from cuntong_daemon.memory import without

_http = ModuleType("tuf.ngclient.urllib3_fetcher")
vars(_http)["Urllib3Fetcher"] = type("Urllib3Fetcher", (), {})
with without(_http.__name__, _http):
    from tuf.ngclient.config import UpdaterConfig
    from tuf.ngclient.fetcher import FetcherInterface
    from tuf.ngclient.updater import Updater

__all__ = ["FetcherInterface", "Updater", "UpdaterConfig"]
