"""Turning a pack into a configured node (SPEC 5.6)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from cuntong_daemon.config import write_config
from cuntong_daemon.control.lock import hold_data_directory
from cuntong_daemon.files import sync_folder, write_atomically
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.pki.ca import check_chain
from cuntong_daemon.pki.certificates import (
    KeyFiles,
    certificate_code,
    certificate_spki,
    chain_pem,
    load_certificate,
    load_chain,
    load_private_key,
)
from cuntong_daemon.pki.issued import install_renewal
from cuntong_daemon.trust.federation import Federation
from cuntong_daemon.trust.spool import Spool
from cuntong_protocol.divisions import Division
from cuntong_protocol.enrolment import (
    MAX_PACK_FILE_BYTES,
    EnrolmentError,
    Pack,
    checked_public_key,
    decode_refusal,
    is_refusal,
    open_pack,
    spki_sha256,
    verify_pack,
)
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_

from .packs import config_of_pack, issuer_code, issuer_of, network_fingerprint
from .request import pending_request


@dataclass(frozen=True, slots=True)
class CheckedPack:
    """A pack that is whole, and for a key of this computer.

    Attributes:
        key: Where that key lies: `pending.key`, or `node.key` for a renewal.
    """

    pack: Pack
    chain: list[x509.Certificate]
    anchor: x509.Certificate
    key: Path

    @property
    def code(self) -> Division:
        return Division(self.pack.code)

    @property
    def authority(self) -> Division:
        """Who issued the certificate."""
        return issuer_code(self.chain, self.anchor)

    @property
    def fingerprint(self) -> str:
        """Of the nation's network."""
        return network_fingerprint(self.pack.nation_root, self.anchor)

    @property
    def ends(self) -> datetime:
        return self.chain[0].not_valid_after_utc


def read_pack(path: Path) -> bytes:
    """Read a pack or refusal.

    Raises:
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        return file.read(MAX_PACK_FILE_BYTES + 1)


def check_pack(paths: DataPaths, data: bytes) -> CheckedPack:
    """Check everything about a pack before anything is written.

    Raises:
        EnrolmentError: `node.refused` with the parent's reason when it is a refusal; `pack.damaged`,
            `pack.newer`, `pack.other-node`, `pack.other-key`, `pack.no-request`, `pack.bad-signature`,
            `pack.inconsistent`, `ca.broken-chain`, `node.bad-…`.
    """
    if is_refusal(data):
        refusal = decode_refusal(data.decode("ascii", "replace"))
        raise EnrolmentError(
            "node.refused",
            N_("{authority} refused the request of {node} on {date}: {reason}"),
            authority=refusal.by,
            node=refusal.code,
            date=datetime.fromtimestamp(refusal.at, UTC).date().isoformat(),
            reason=refusal.reason,
        )
    pack, signed = open_pack(data)
    chain = [load_certificate(der) for der in pack.chain]
    anchor = load_certificate(pack.anchor)
    check_chain(chain, anchor)
    if certificate_code(chain[0]) != pack.code or Division(pack.code).tier.label != pack.tier:
        raise EnrolmentError(
            "pack.inconsistent",
            N_(
                "The pack and the certificate in it name different places. Ask the parent for another."
            ),
            fault=Fault.CONTENT,
        )
    verify_pack(signed, checked_public_key(issuer_of(chain, anchor).public_key()))
    return CheckedPack(pack, chain, anchor, _own_key(KeyFiles(paths.keys), pack, chain[0]))


def _own_key(files: KeyFiles, pack: Pack, certificate: x509.Certificate) -> Path:
    request = pending_request(files)
    wanted = certificate_spki(certificate)
    has_keys = False
    for path in (files.pending_key, files.key):
        try:
            key = load_private_key(path.read_bytes())
        except FileNotFoundError:
            continue
        has_keys = True
        if spki_sha256(key.public_key()) == wanted:
            return path
    if not has_keys:
        raise EnrolmentError(
            "pack.no-request",
            N_("No request was made on this computer. Make one first: cuntong node request {node}"),
            fault=Fault.USAGE,
            node=pack.code,
        )
    if request is not None and request.code != pack.code:
        raise EnrolmentError(
            "pack.other-node",
            N_(
                "This pack is for {other}, but this computer asked as {node}. Use the pack for {node}."
            ),
            other=pack.code,
            node=request.code,
        )
    raise EnrolmentError(
        "pack.other-key",
        N_(
            "This pack is for a key that isn't on this computer. Give the parent the request that was made here."
        ),
    )


def is_enrolled(paths: DataPaths) -> bool:
    """Whether this data directory holds a complete enrolment."""
    return KeyFiles(paths.keys).chain.exists() and paths.config.exists()


def enrol(
    paths: DataPaths,
    checked: CheckedPack,
    *,
    is_replacing: bool,
    listen: str | None = None,
    swarm: str | None = None,
    fingerprint: str | None = None,
    clock: Callable[[], datetime],
) -> bool:
    """Install a pack. Cut short anywhere, it can be run again.

    For a node that is enrolled with this very key it is a renewal: only the certificate changes.

    Args:
        is_replacing: An enrolment that is there is replaced; its configuration is kept as `config.toml.old`.
        listen, swarm: Instead of the tier profile's.
        fingerprint: Of the nation's network, as a person read it elsewhere.
        clock: UTC.

    Returns:
        True when it was a renewal.

    Raises:
        EnrolmentError: `node.already-enrolled`, `node.other-network`, `pack.wrong-fingerprint`.
        ConfigError: for `listen` and `swarm`.
        ControlError: `control.second-daemon` while a daemon runs on this data directory.
        TrustError: the nation's metadata in the pack is no good.
        OSError: the disk is full or read-only.
    """
    pack = checked.pack
    if fingerprint is not None and _bare(fingerprint) != _bare(checked.fingerprint):
        raise EnrolmentError(
            "pack.wrong-fingerprint",
            N_(
                "This pack is for the network {found}, not {expected}. Don't use it, and ask where it comes from."
            ),
            found=checked.fingerprint,
            expected=fingerprint,
        )
    _check_same_network(paths, checked)
    if is_enrolled(paths) and not is_replacing:
        if checked.key == KeyFiles(paths.keys).key and _is_newer(paths, checked):
            return install_renewal(paths.keys, chain_pem(checked.chain))
        raise EnrolmentError(
            "node.already-enrolled",
            N_("This node is enrolled already, as {node}. To enrol it anew, add --replace."),
            node=_enrolled_code(paths),
        )
    text = config_of_pack(pack, listen=listen, swarm=swarm)
    paths.root.mkdir(parents=True, exist_ok=True)
    with hold_data_directory(paths):
        _install_metadata(paths, pack, clock)
        _install_keys(paths, checked)
        if paths.config.exists():
            write_config(paths.root / "config.toml.old", paths.config.read_text(encoding="utf-8"))
        # Last: from now on the node counts as enrolled.
        write_config(paths.config, text)
    return False


def _bare(fingerprint: str) -> str:
    return "".join(filter(str.isalnum, fingerprint)).upper()


def _check_same_network(paths: DataPaths, checked: CheckedPack) -> None:
    try:
        present = load_chain(KeyFiles(paths.keys).anchor.read_bytes())[0]
    except FileNotFoundError:
        return
    if certificate_spki(present) != certificate_spki(checked.anchor):
        raise EnrolmentError(
            "node.other-network",
            N_("{folder} belongs to a node of another network. Use a new folder: --data DIR"),
            folder=str(paths.root),
        )


def _is_newer(paths: DataPaths, checked: CheckedPack) -> bool:
    current = load_chain(KeyFiles(paths.keys).chain.read_bytes())[0]
    return certificate_code(current) == checked.code and checked.ends > current.not_valid_after_utc


def _enrolled_code(paths: DataPaths) -> str:
    return certificate_code(load_chain(KeyFiles(paths.keys).chain.read_bytes())[0])


def _install_metadata(paths: DataPaths, pack: Pack, clock: Callable[[], datetime]) -> None:
    # The profile doesn't matter for setting the anchor.
    federation = Federation(paths, code=Division(pack.code), profile="tolerant", clock=clock)
    with closing(federation):
        federation.bootstrap(pack.nation_root, datetime.fromtimestamp(pack.proven_time, UTC))
    spool = Spool(paths)
    for path, data in pack.objects.items():
        kind, _, rest = path.partition("/")
        if kind == "blobs":
            spool.store_blob(rest, data)
        else:
            authority, _, name = rest.partition("/")
            spool.store_metadata(Division(authority), name, data)


def _install_keys(paths: DataPaths, checked: CheckedPack) -> None:
    files = KeyFiles(paths.keys)
    paths.keys.chmod(0o700)
    write_atomically(files.anchor, chain_pem([checked.anchor]))
    write_atomically(files.chain, chain_pem(checked.chain))
    if checked.key != files.key:
        checked.key.replace(files.key)
        sync_folder(paths.keys)
    files.pending_request.unlink(missing_ok=True)
