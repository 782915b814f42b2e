"""The authorities' certificate authorities: what they sign, and the lint before it (SPEC 5.1).

Each certificate is first signed by a throw-away key and checked as a reader would see it; only if that
passes does the real key sign the same content. So no mistake in here ever gets a real signature.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID

from cuntong_protocol.divisions import NATION, Division, Tier
from cuntong_protocol.enrolment import (
    EnrolmentError,
    PrivateKey,
    PublicKey,
    checked_public_key,
    spki_sha256,
)
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_

from .certificates import (
    MAX_CERTIFICATE_BYTES,
    ca_code,
    certificate_code,
    certificate_der,
    certificate_spki,
    new_key,
)
from .making import common_name, key_usage, new_builder, signed_by

CA_LIFE = timedelta(days=3653)
"""Ten years."""
NODE_LIFE = timedelta(days=456)
"""Fifteen months: the yearly inspection and three months of slack."""
RENEW_BEFORE = timedelta(days=90)
"""From when on a node's certificate is due for renewal."""

_NODE_USAGES = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
_COMMON_EXTENSIONS = {
    x509.BasicConstraints,
    x509.KeyUsage,
    x509.SubjectKeyIdentifier,
    x509.AuthorityKeyIdentifier,
}
_CA_EXTENSIONS = _COMMON_EXTENSIONS | {x509.NameConstraints}
_NODE_EXTENSIONS = _COMMON_EXTENSIONS | {x509.SubjectAlternativeName, x509.ExtendedKeyUsage}


def make_ca_certificate(key: PrivateKey, *, now: datetime) -> x509.Certificate:
    """The nation's self-signed CA: the one trust anchor of the network.

    Raises:
        EnrolmentError: `ca.lint-…`, nothing was signed by `key`.
    """
    return _sign(
        _ca_builder(NATION, key.public_key(), now), key.public_key(), _ca_name(NATION), key
    )


def sign_ca(
    child: Division,
    child_key: PublicKey,
    issuer: x509.Certificate,
    issuer_key: PrivateKey,
    *,
    now: datetime,
) -> x509.Certificate:
    """A CA certificate for an authority below the issuer, confined to the child's subtree.

    It never outlives its issuer.

    Raises:
        EnrolmentError: `ca.wrong-key`, `ca.wrong-subtree`, `ca.expired`, `ca.lint-…`; nothing was signed.
    """
    issuer_code = _check_issuer(issuer, issuer_key, now)
    if not child.is_below(issuer_code):
        raise _wrong_subtree(child, issuer_code)
    builder = _ca_builder(child, child_key, now, latest=issuer.not_valid_after_utc)
    return _sign(builder, issuer_key.public_key(), issuer.subject, issuer_key)


def issue_node_certificate(
    code: Division,
    node_key: PublicKey,
    issuer: x509.Certificate,
    issuer_key: PrivateKey,
    *,
    now: datetime,
) -> x509.Certificate:
    """A certificate for a node: one name, 15 months, client and server (SPEC 5.1).

    It never outlives its issuer.

    Raises:
        EnrolmentError: `ca.wrong-key`, `ca.wrong-subtree`, `ca.expired`, `ca.lint-…`; nothing was signed.
    """
    issuer_code = _check_issuer(issuer, issuer_key, now)
    if not code.is_within(issuer_code):
        raise _wrong_subtree(code, issuer_code)
    start = now.replace(microsecond=0)
    builder = (
        _builder(
            common_name(str(code)),
            node_key,
            start,
            min(start + NODE_LIFE, issuer.not_valid_after_utc),
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_NODE_USAGES), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(code.dns_name)]), critical=False)
    )
    return _sign(builder, issuer_key.public_key(), issuer.subject, issuer_key)


def lint(certificate: x509.Certificate) -> None:
    """Check a certificate as SPEC 5.1 describes it, whoever signed it.

    Raises:
        EnrolmentError: `ca.lint-…`, naming what is wrong.
    """
    extensions = certificate.extensions
    kinds = {type(extension.value) for extension in extensions}
    is_ca = x509.NameConstraints in kinds
    _demand(kinds == (_CA_EXTENSIONS if is_ca else _NODE_EXTENSIONS), "extensions")
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    checked_public_key(certificate.public_key())
    _demand(certificate.version is x509.Version.v3, "version")
    _demand(len(certificate_der(certificate)) <= MAX_CERTIFICATE_BYTES, "size")
    _demand(basic.critical and usage.critical, "critical")
    _demand(basic.value.ca == is_ca, "usage")
    _demand(usage.value == _usage(signs_certificates=is_ca), "usage")
    _demand(timedelta(0) < end - start <= (CA_LIFE if is_ca else NODE_LIFE), "period")
    if is_ca:
        code = ca_code(certificate)
        _demand(basic.value.path_length == path_length(code), "path-length")
        _demand(certificate.subject == _ca_name(code), "subject")
    else:
        code = certificate_code(certificate)
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        _demand(list(purposes) == _NODE_USAGES, "purpose")
        _demand(certificate.subject == common_name(str(code)), "subject")


def path_length(code: Division) -> int:
    """How many CAs may stand between the CA of this place and a node: the tiers below it."""
    return Tier.VILLAGE - code.tier


def check_chain(chain: list[x509.Certificate], anchor: x509.Certificate) -> None:
    """Check that each certificate was issued by the next one, and the last by `anchor`; time is not judged.

    This is for the person at the keyboard, so that mistakes are found before a pack is on its way.
    Between nodes OpenSSL verifies.

    Args:
        chain: The certificate of a node or an authority, then the CAs above it without the nation's; it may
            be empty for the nation's own CA.
        anchor: The nation's CA certificate.

    Raises:
        EnrolmentError: `ca.broken-chain`, `node.bad-ca`, `node.bad-name`.
    """
    issuers = [*chain[1:], anchor]
    try:
        for certificate, issuer in pairwise([*chain, anchor, anchor]):
            certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise _broken_chain() from None
    places = [ca_code(issuer) for issuer in issuers]
    if not chain:
        is_inside = True
    elif _is_ca(chain[0]):
        is_inside = ca_code(chain[0]).is_below(places[0])
    else:
        is_inside = certificate_code(chain[0]).is_within(places[0])
    steps = (lower.is_below(upper) for lower, upper in pairwise(places))
    if places[-1] != NATION or not is_inside or not all(steps):
        raise _broken_chain()


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return False


def _broken_chain() -> EnrolmentError:
    return EnrolmentError(
        "ca.broken-chain",
        N_("The certificates don't lead up to the nation's. Get them from the parent again."),
    )


def _check_issuer(issuer: x509.Certificate, issuer_key: PrivateKey, now: datetime) -> Division:
    code = ca_code(issuer)
    if certificate_spki(issuer) != spki_sha256(issuer_key.public_key()):
        raise EnrolmentError(
            "ca.wrong-key",
            N_(
                "This CA key doesn't belong to {authority}'s CA certificate. Is it the right stick?"
            ),
            authority=code,
        )
    if issuer.not_valid_after_utc <= now:
        raise EnrolmentError(
            "ca.expired",
            N_(
                "The CA certificate of {authority} ended on {date}. Have the authority endorsed again."
            ),
            authority=code,
            date=issuer.not_valid_after_utc.date().isoformat(),
        )
    return code


def _wrong_subtree(code: Division, issuer: Division) -> EnrolmentError:
    return EnrolmentError(
        "ca.wrong-subtree",
        N_("{node} doesn't lie below {issuer}: its own parent must do this."),
        node=code,
        issuer=issuer,
    )


def _ca_builder(
    code: Division, key: PublicKey, now: datetime, latest: datetime | None = None
) -> x509.CertificateBuilder:
    start = now.replace(microsecond=0)
    end = start + CA_LIFE
    return (
        _builder(_ca_name(code), key, start, end if latest is None else min(end, latest))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length(code)), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(
            x509.NameConstraints([x509.DNSName(code.dns_subtree)], None),
            critical=True,
        )
    )


def _builder(
    subject: x509.Name, key: PublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    identifier = x509.SubjectKeyIdentifier.from_public_key(key)
    return new_builder(subject, key, start, end).add_extension(identifier, critical=False)


def _sign(
    builder: x509.CertificateBuilder,
    issuer_public_key: PublicKey,
    issuer_name: x509.Name,
    issuer_key: PrivateKey,
) -> x509.Certificate:
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_public_key)
    ready = builder.issuer_name(issuer_name).add_extension(identifier, critical=False)
    lint(signed_by(ready, new_key("ed25519")))
    return signed_by(ready, issuer_key)


def _ca_name(code: Division) -> x509.Name:
    return common_name(f"CA {code}")


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    # A CA signs enrolment packs, too.
    return key_usage(signs_data=True, signs_certificates=signs_certificates)


def _demand(fact: bool, what: str) -> None:
    if not fact:
        raise EnrolmentError(
            f"ca.lint-{what}",
            N_("The certificate to be signed would be wrong ({what}), so nothing was signed."),
            fault=Fault.OURS,
            what=what,
        )
