"""A plain libtorrent client: `python -m cuntong_simulations.lab.contenders.plain TORRENT FOLDER ADDRESS PEER…`.

libtorrent's defaults, without what would leave the laboratory.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import libtorrent as lt

PORT = 6881
REDIAL_S = 2.0
"""A peer that starts later isn't there yet when it is first dialled, and tells nobody when it is.

Dialling a peer that is connected changes nothing.
"""
CONFINED: lt.settings_pack = {
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "dht_bootstrap_nodes": "",
    "webtorrent_stun_server": "",
}


def main() -> None:
    """Download or seed until the process is ended."""
    torrent, folder, address, *peers = sys.argv[1:]
    session = lt.session({**CONFINED, "listen_interfaces": f"{address}:{PORT}"})
    wanted = lt.add_torrent_params()
    wanted.ti = lt.torrent_info(str(Path(torrent)))
    wanted.save_path = folder
    handle = session.add_torrent(wanted)
    while True:
        for peer in peers:
            handle.connect_peer((peer, PORT))
        time.sleep(REDIAL_S)


if __name__ == "__main__":
    main()
