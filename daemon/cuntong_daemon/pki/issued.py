"""The certificates that an authority has issued, and how a renewed one gets into a node (SPEC 5.1).

`authority/issued/<code>.pem` is the newest chain for a node, as the daemon delivers it over the link;
`<code>.json` is what the node's request said and how it was set up, so that a pack can be made again.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec
from cryptography import x509

from cuntong_daemon.files import write_atomically
from cuntong_protocol.divisions import Division
from cuntong_protocol.enrolment import EnrolmentError, Parent, spki_sha256
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_

from .ca import check_chain
from .certificates import (
    KeyFiles,
    certificate_code,
    certificate_spki,
    chain_pem,
    load_chain,
    load_private_key,
    not_enrolled,
)


class NodeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What an authority remembers of a node beside its certificate. Not signed, not sent to anybody."""

    name: str = ""
    site: str = ""
    contact: str = ""
    equipment: str = ""
    link: str = ""
    parents: tuple[Parent, ...] = ()
    receives_only: bool = False
    vpn_shape: str = "mesh"
    networks: tuple[str, ...] = ()


class IssuedCertificates:
    """The folder `issued/` of an authority."""

    def __init__(self, authority: Path) -> None:
        self.folder = authority / "issued"

    def codes(self) -> list[Division]:
        """The nodes that have a certificate, in order of their codes."""
        # A folder that isn't there has no files.
        return [Division(path.stem) for path in sorted(self.folder.glob("[0-9]" * 12 + ".pem"))]

    def chain(self, code: Division) -> list[x509.Certificate] | None:
        """The newest chain of a node, its own certificate first; None when there is none.

        Raises:
            EnrolmentError: `node.bad-certificate`.
        """
        try:
            return load_chain((self.folder / f"{code}.pem").read_bytes())
        except FileNotFoundError:
            return None

    def record(self, code: Division) -> NodeRecord:
        """What is remembered of a node; an empty record when nothing is, or the file is damaged."""
        try:
            return msgspec.json.decode((self.folder / f"{code}.json").read_bytes(), type=NodeRecord)
        except (FileNotFoundError, msgspec.DecodeError):
            return NodeRecord()

    def save(
        self, code: Division, chain: list[x509.Certificate], record: NodeRecord | None = None
    ) -> None:
        """Keep a new certificate, and the record when one is given."""
        self.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        if record is not None:
            data = msgspec.json.format(msgspec.json.encode(record), indent=2)
            # Names and telephone numbers of people.
            write_atomically(self.folder / f"{code}.json", data, mode=0o640)
        write_atomically(self.folder / f"{code}.pem", chain_pem(chain))

    def forget(self, code: Division) -> None:
        """Deliver nothing more to a node; what is remembered of it stays."""
        (self.folder / f"{code}.pem").unlink(missing_ok=True)

    def newer_chain(self, code: Division, spki: bytes, not_after: datetime) -> bytes | None:
        """The PEM chain to deliver to a node that shows an older certificate; None when it has the newest.

        Args:
            spki: The key that the node shows (`PeerIdentity.spki`).
            not_after: When what it shows ends (`PeerIdentity.not_after`).

        Raises:
            EnrolmentError: `node.bad-certificate`, `node.bad-key`.
        """
        chain = self.chain(code)
        if (
            chain is None
            or certificate_spki(chain[0]) != spki
            or chain[0].not_valid_after_utc <= not_after
        ):
            return None
        return chain_pem(chain)


def install_renewal(keys: Path, pem: bytes) -> bool:
    """Take a renewed chain for this node's own key into use; TLS contexts must be made again after it.

    It may come from anybody: nothing but a certificate of this network, for this key and code, that ends later
    than the one in use is taken.

    Args:
        keys: `DataPaths.keys`.
        pem: The node's certificate, then the CAs above it without the nation's.

    Returns:
        False when the one in use lasts as long already.

    Raises:
        EnrolmentError: `node.not-enrolled`, `node.foreign-certificate`, `ca.…`, `node.bad-…`; nothing was
            changed.
    """
    files = KeyFiles(keys)
    chain = load_chain(pem)
    try:
        key = load_private_key(files.key.read_bytes())
        current = load_chain(files.chain.read_bytes())[0]
        anchor = load_chain(files.anchor.read_bytes())[0]
    except FileNotFoundError:
        raise not_enrolled() from None
    check_chain(chain, anchor)
    if certificate_spki(chain[0]) != spki_sha256(key.public_key()) or certificate_code(
        chain[0]
    ) != certificate_code(current):
        raise EnrolmentError(
            "node.foreign-certificate",
            N_("This certificate was issued for another node or another key."),
            fault=Fault.PEER,
        )
    if chain[0].not_valid_after_utc <= current.not_valid_after_utc:
        return False
    write_atomically(files.chain, chain_pem(chain))
    return True
