"""The authority at whose keyboard a person sits."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from securesystemslib.signer import Signer  # type: ignore[attr-defined]  # No __all__.

from cuntong_daemon.authority.endorsement import ca_chain
from cuntong_daemon.authority.keys import KeyRing
from cuntong_daemon.authority.repository import Authority, AuthorityRepository
from cuntong_daemon.config import (
    Config,
    load_config,
)
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.pki.certificates import (
    PrivateKey,
)
from cuntong_daemon.pki.issued import IssuedCertificates
from cuntong_protocol.divisions import Division
from cuntong_protocol.enrolment import (
    EnrolmentError,
)
from cuntong_protocol.texts import N_
from cuntong_protocol.trust.members import MembersList


@dataclass(frozen=True, slots=True)
class Centre:
    """The authority at whose keyboard a person sits.

    Attributes:
        ca_chain: Its CA certificate, then those above it, the nation's last.
        config: Of the centre's own node; None as long as that isn't enrolled.
    """

    paths: DataPaths
    repository: AuthorityRepository
    authority: Authority
    members: MembersList
    ca_chain: list[x509.Certificate]
    issued: IssuedCertificates
    config: Config | None

    @property
    def code(self) -> Division:
        return self.authority.code

    def ca_key(self, ring: KeyRing) -> PrivateKey:
        """Decrypt the CA key. Errors as `KeyRing.private_key`."""
        return ring.private_key(self.authority.settings.keys["ca"], "ca")

    def enrolment_signer(self, ring: KeyRing) -> Signer:
        """Decrypt the enrolment key. Errors as `KeyRing.private_key`."""
        return ring.signer(self.authority.settings.keys["enrolment"], "enrolment")


def open_centre(paths: DataPaths) -> Centre:
    """Read the authority in a data directory.

    Raises:
        AuthorityError: `authority.…`, `authority.no-ca` before the endorsement is installed.
    """
    repository = AuthorityRepository(paths.authority)
    authority = repository.load()
    return Centre(
        paths,
        repository,
        authority,
        repository.members(),
        ca_chain(repository),
        IssuedCertificates(paths.authority),
        load_config(paths.config) if paths.config.exists() else None,
    )


def check_below(centre: Centre, node: Division) -> None:
    """Only places within the authority's area, and below no authority of its own, are accepted here.

    Raises:
        EnrolmentError: `ca.wrong-subtree`.
    """
    if not node.is_within(centre.code):
        raise EnrolmentError(
            "ca.wrong-subtree",
            N_("{node} doesn't lie below {issuer}: its own parent must do this."),
            node=node,
            issuer=centre.code,
        )
