"""How the libtorrent session is set: what must never leak, and what each tier can carry (SPEC 7.1).

Every value here that differs from libtorrent's own has its reason beside it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import libtorrent as lt

from cuntong_protocol.divisions import Tier

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

TICK_INTERVAL_MS = 100
"""Limits are handed out once a tick; with the default of 500 ms a slow link goes in lumps."""
UTP_TARGET_DELAY_MS = 40
"""Until the links are known (SPEC 10.4): right for 512 kbit/s, where it moves all there is."""
MIN_RECONNECT_S = 2
"""Times (failures + 1), of which libtorrent counts at most 31: a parent that was away a day is tried again
within a minute."""
MAX_FAILCOUNT = 32
"""More than libtorrent can count: peers come from introductions and are never given up."""
PEER_TIMEOUT_S = 16
"""A parent that lost its power answers nothing, and a uTP child that was killed and came back on the same port is
taken for a duplicate until its old connection has died: about 9 s with this, 60 with libtorrent's 120. It
costs 30 bytes every 8 s on a connection that moves nothing; complete torrents keep no connections."""
CONNECT_TIMEOUT_S = 5
"""A node that has no torrent yet doesn't answer at all; the default of 15 s would be lost each time."""
UTP_RESENDS = 3
"""libtorrent's own. It begins with half a second: with 1, a packet that is lost twice ended the connection for the
sender after a second, and the receiver waited 9 s for nothing."""
RECEIVE_BUFFER_S = 0.25
"""Under a limit of our own the kernel's receive buffer fills up: megabytes that a crash loses, and that go on
coming after a pause."""
MIN_RECEIVE_BUFFER = 64 * 1024
LOWER_EFFORT = 0x04
"""DSCP 1, Lower Effort (RFC 8622), as the whole octet: routers that know it serve everyone else first."""
ALERT_QUEUE_SIZE = 10_000
"""A piece finished is one alert; 10,000 is seconds of the fastest download."""
VILLAGE_CONNECTIONS = 60
"""A village has a few parents a torrent; this limits what a wrong introduction can cost in memory."""
CENTRE_CONNECTIONS = 2_000
"""A centre serves 1,000 children."""

DENY = 1
_ALL_V4 = ("0.0.0.0", "255.255.255.255")  # noqa: S104  A range for a filter; nothing is bound to it.
_ALL_V6 = ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")

ALERT_MASK = (
    lt.alert_category.error
    | lt.alert_category.status
    | lt.alert_category.storage
    | lt.alert_category.piece_progress
    | lt.alert_category.connect
)


def is_shared_link(tier: Tier) -> bool:
    """Townships and villages share their link with the public: there only uTP yields (DESIGN 8)."""
    return tier >= Tier.TOWNSHIP


def session_settings(
    *, host: str, down_bytes_s: int, up_bytes_s: int, is_shared: bool
) -> lt.settings_pack:
    """The settings of a session that doesn't listen yet.

    Args:
        host: The one address that packets may leave from.
        down_bytes_s: Limit on the wire, overhead included; 0 for none.
        up_bytes_s: The same for the other direction.
        is_shared: The public uses the link, too: uTP only.
    """
    shared = is_shared
    return {
        "user_agent": "Cuntong",
        "peer_fingerprint": "-CU0100-",
        "alert_mask": ALERT_MASK,
        "alert_queue_size": ALERT_QUEUE_SIZE,
        # Confinement: peers come from introductions only, nothing is looked up or announced.
        "listen_interfaces": "",
        "outgoing_interfaces": host,
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_ip_notifier": False,
        "dht_bootstrap_nodes": "",
        "webtorrent_stun_server": "",
        "max_retry_port_bind": 0,  # Another port than the configured one is no use to anyone.
        "listen_system_port_fallback": False,
        # The lower end dials: by uTP from a shared link, by TCP from a centre (DESIGN 8).
        "enable_incoming_utp": True,
        "enable_outgoing_utp": shared,
        "enable_incoming_tcp": not shared,
        "enable_outgoing_tcp": not shared,
        "utp_num_resends": UTP_RESENDS,
        "utp_target_delay": UTP_TARGET_DELAY_MS,
        "mixed_mode_algorithm": int(lt.bandwidth_mixed_algo_t.prefer_tcp),  # Links are our own.
        "out_enc_policy": int(
            lt.enc_policy.disabled
        ),  # The VPN encrypts; obfuscation costs a trip.
        "in_enc_policy": int(lt.enc_policy.disabled),
        # Nodes of a test or a village behind one router share an address.
        "allow_multiple_connections_per_ip": True,
        "seeding_outgoing_connections": False,
        "min_reconnect_time": MIN_RECONNECT_S,
        "max_failcount": MAX_FAILCOUNT,
        "peer_timeout": PEER_TIMEOUT_S,
        "peer_connect_timeout": CONNECT_TIMEOUT_S,
        "no_connect_privileged_ports": False,
        "ssrf_mitigation": True,
        # Limits count what crosses the link, headers included.
        "rate_limit_ip_overhead": True,
        **limit_settings(down_bytes_s, up_bytes_s),
        "peer_dscp": LOWER_EFFORT,
        "tick_interval": TICK_INTERVAL_MS,
        "unchoke_slots_limit": -1,
        # Half-received pieces are lost by a crash: finish one before the next is begun.
        "prioritize_partial_pieces": True,
        "predictive_piece_announce": 0,
        "active_downloads": -1,
        "active_seeds": -1,
        "active_limit": -1,
        "active_checking": -1,
        "auto_manage_interval": 3600,  # Nothing is managed by libtorrent.
        "stop_tracker_timeout": 1,
        # Memory and threads.
        "connections_limit": VILLAGE_CONNECTIONS if shared else CENTRE_CONNECTIONS,
        "aio_threads": 1 if shared else 4,
        "hashing_threads": 1 if shared else 2,
        "file_pool_size": 20 if shared else 200,
        "max_queued_disk_bytes": (1 if shared else 16) * 1024 * 1024,
        "max_peerlist_size": 100,
        "max_paused_peerlist_size": 100,
        "send_buffer_watermark": (64 if shared else 500) * 1024,
    }


def limit_settings(down_bytes_s: int, up_bytes_s: int) -> lt.settings_pack:
    """The settings that hold a session to these limits; 0 for none."""
    buffer = max(MIN_RECEIVE_BUFFER, int(down_bytes_s * RECEIVE_BUFFER_S)) if down_bytes_s else 0
    return {
        "download_rate_limit": down_bytes_s,
        "upload_rate_limit": up_bytes_s,
        "recv_socket_buffer_size": buffer,
    }


def closed_port(port: int) -> int:
    """Where closed torrents are served: the next port (after the last one, that before); 0 beside 0."""
    if not port:
        return 0
    return port + 1 if port < 65_535 else port - 1


def listen_interfaces(host: str, port: int) -> str:
    """libtorrent's spelling of one address and its two ports."""
    address = f"[{host}]" if ":" in host else host
    return f"{address}:{port},{address}:{closed_port(port)}s"


def confinement(networks: Sequence[IPNetwork]) -> lt.ip_filter:
    """Deny all of IPv4 and IPv6, then allow these ranges."""
    rules = lt.ip_filter()
    rules.add_rule(*_ALL_V4, DENY)
    rules.add_rule(*_ALL_V6, DENY)
    for network in networks:
        rules.add_rule(str(network[0]), str(network[-1]), 0)
    return rules


def one_class_for_all() -> lt.ip_filter:
    """Put every peer under the session's limits.

    libtorrent exempts private addresses from them, and a VPN has no others.
    """
    rules = lt.ip_filter()
    everyone = 1 << lt.session.global_peer_class_id
    rules.add_rule(*_ALL_V4, everyone)
    rules.add_rule(*_ALL_V6, everyone)
    return rules
