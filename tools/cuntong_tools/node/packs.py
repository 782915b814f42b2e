"""The packs that an authority makes: parents, configuration, metadata (SPEC 5.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from cryptography import x509

from cuntong_daemon.addresses import parse_address
from cuntong_daemon.config import (
    ParentAddress,
    new_config,
    tier_defaults,
)
from cuntong_daemon.pki.bootstrap import (
    authority_objects,
    collect_metadata,
    folder_objects,
    signed_at,
)
from cuntong_daemon.pki.certificates import (
    ca_code,
    certificate_der,
)
from cuntong_daemon.pki.certificates import (
    network_fingerprint as network_fingerprint,
)
from cuntong_daemon.pki.issued import NodeRecord
from cuntong_daemon.trust.spool import Spool
from cuntong_protocol.divisions import NATION, Division
from cuntong_protocol.enrolment import (
    EnrolmentError,
    Pack,
    Parent,
    Request,
)
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import N_
from cuntong_protocol.trust.names import metadata_path

from .centre import Centre


def parse_parents(centre: Centre, node: Division, addresses: Sequence[str]) -> tuple[Parent, ...]:
    """Read `--address [CODE=]HOST:PORT`; the parents of this centre follow as fall-back.

    Raises:
        EnrolmentError: `pack.bad-address`.
    """
    nearest = centre.code if node != centre.code else (node.parent or NATION)
    found: dict[str, Parent] = {}
    for text in addresses:
        code, equals, address = text.rpartition("=")
        try:
            above = Division(code) if equals else nearest
            parse_address(address)
            is_good = node.is_below(above)
        except (ValueError, CuntongError):
            is_good = False
        if not is_good:
            raise EnrolmentError(
                "pack.bad-address",
                N_(
                    "{address} is not the address of a place above {node}. Write it like 10.1.2.3:7440 or 440000000000=10.1.2.3:7440."
                ),
                fault=Fault.USAGE,
                address=text,
                node=node,
            )
        found.setdefault(above, Parent(str(above), address))
    if centre.config is not None:
        for parent in centre.config.network.parents:
            found.setdefault(parent.code, Parent(parent.code, parent.address))
    return tuple(found.values())


def make_pack_record(
    centre: Centre,
    request: Request,
    addresses: Sequence[str],
    *,
    name: str,
    receives_only: bool,
    networks: Sequence[str],
    vpn_shape: str | None,
) -> NodeRecord:
    """Decide how a node will be set up, and check that it can be.

    Raises:
        EnrolmentError: `pack.bad-address`, `pack.no-parent`, `pack.no-nation`.
        ConfigError: the node's configuration would be refused, for instance for a parent outside the networks.
    """
    node = Division(request.code)
    parents = () if receives_only else parse_parents(centre, node, addresses)
    if not receives_only and not addresses and node != NATION:
        raise EnrolmentError(
            "pack.no-parent",
            N_(
                "Say where {node} dials its parent: --address HOST:PORT. If it has no way back: --receive-only."
            ),
            fault=Fault.USAGE,
            node=node,
        )
    defaults = tier_defaults(node.tier)
    # The VPN is one; its shape differs from tier to tier.
    own = centre.config.network.networks if centre.config else defaults["network"]["networks"]
    record = NodeRecord(
        name=name or request.site,
        site=request.site,
        contact=request.contact,
        equipment=request.equipment,
        link=request.link,
        parents=parents,
        receives_only=receives_only,
        vpn_shape=vpn_shape or defaults["node"]["vpn_shape"],
        networks=tuple(networks or own),
    )
    _config(node, record.name, parents, record.receives_only, record.vpn_shape, record.networks)
    return record


def collect(centre: Centre, node: Division) -> dict[str, bytes]:
    """The metadata for a node's pack, as far as this centre has it.

    Raises:
        EnrolmentError: `pack.no-nation`.
    """
    sources = (
        authority_objects(centre.paths.authority, centre.code),
        Spool(centre.paths).read,
        folder_objects(centre.paths.authority / "parents"),
    )
    return collect_metadata(sources, node)


def check_clock(objects: Mapping[str, bytes], now: datetime) -> None:
    """A pack gives a node its first time: it must not be before what the nation has signed (SPEC 4.7).

    Raises:
        EnrolmentError: `pack.clock-behind`.
    """
    signed = signed_at(dict(objects), NATION)
    if now < signed:
        raise EnrolmentError(
            "pack.clock-behind",
            N_(
                "This computer's clock says {now}, but the nation signed its catalogue on {signed}. Set the clock."
            ),
            fault=Fault.SYSTEM,
            now=now.date().isoformat(),
            signed=signed.date().isoformat(),
        )


def make_pack(
    centre: Centre,
    node: Division,
    chain: Sequence[x509.Certificate],
    record: NodeRecord,
    objects: Mapping[str, bytes],
    *,
    now: datetime,
) -> Pack:
    """Put a pack together; `encode_pack` signs it."""
    return Pack(
        code=str(node),
        name=record.name,
        chain=tuple(certificate_der(certificate) for certificate in chain),
        anchor=certificate_der(centre.ca_chain[-1]),
        nation_root=objects[metadata_path(NATION, "root", 1)],
        objects=dict(objects),
        proven_time=int(now.timestamp()),
        parents=record.parents,
        tier=node.tier.label,  # type: ignore[arg-type]  # The labels are just these.
        receives_only=record.receives_only,
        vpn_shape="hub" if record.vpn_shape == "hub" else "mesh",
        networks=record.networks,
    )


def config_of_pack(pack: Pack, *, listen: str | None = None, swarm: str | None = None) -> str:
    """The text of `config.toml` for the node of a pack.

    Args:
        listen, swarm: Instead of the tier profile's.

    Raises:
        ConfigError: as `new_config`.
    """
    return _config(
        Division(pack.code),
        pack.name,
        pack.parents,
        pack.receives_only,
        pack.vpn_shape,
        pack.networks,
        listen=listen,
        swarm=swarm,
    )


def _config(
    code: Division,
    name: str,
    parents: Sequence[Parent],
    receives_only: bool,
    vpn_shape: str,
    networks: Sequence[str],
    *,
    listen: str | None = None,
    swarm: str | None = None,
) -> str:
    defaults = tier_defaults(code.tier)
    network, node = defaults["network"], {}
    if vpn_shape != defaults["node"]["vpn_shape"]:
        node["vpn_shape"] = vpn_shape
    if receives_only:
        # Nothing on such a node may need a right clock.
        node["profile"] = "tolerant"
    return new_config(
        code,
        name=name,
        swarm=network["swarm"] if swarm is None else swarm,
        listen=network.get("listen", "") if listen is None else listen,
        networks=networks,
        parents=[ParentAddress(code=parent.code, address=parent.address) for parent in parents],
        overrides={"node": node},
    )


def issuer_of(chain: Sequence[x509.Certificate], anchor: x509.Certificate) -> x509.Certificate:
    """The CA that issued the first certificate of a chain."""
    return chain[1] if len(chain) > 1 else anchor


def issuer_code(chain: Sequence[x509.Certificate], anchor: x509.Certificate) -> Division:
    """The authority that issued the first certificate of a chain."""
    return ca_code(issuer_of(chain, anchor))
