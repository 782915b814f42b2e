"""How a parent takes an authority into the federation: request, endorsement, response (SPEC 4.5, 4.10, 5.1).

The request holds what the parent shall vouch for, and nothing secret. It travels on a stick; what makes it
trustworthy is the fingerprint over all of it, which the parent compares with the one on the paper form.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import zstandard
from cryptography import x509
from securesystemslib.signer import Signer  # type: ignore[attr-defined]  # No __all__.
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root  # type: ignore[attr-defined]  # No __all__.

from cuntong_daemon.files import write_atomically
from cuntong_daemon.pki.bootstrap import (
    ReadObject,
    authority_objects,
    collect_metadata,
    folder_objects,
)
from cuntong_daemon.pki.ca import check_chain, sign_ca
from cuntong_daemon.pki.certificates import (
    PrivateKey,
    ca_code,
    chain_pem,
    checked_public_key,
    load_chain,
)
from cuntong_protocol.divisions import NATION, Division
from cuntong_protocol.enrolment import load_public_key
from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import N_
from cuntong_protocol.trust.names import ROOT

from .documents import SETTINGS, Authority
from .keys import AuthorityError, key_id
from .repository import AuthorityRepository, Draft
from .settings import Endorsement, encode_settings

MAX_REQUEST_BYTES = 64 * 1024
"""A root with 20 keys of each kind has below 20 KiB."""
MAX_RESPONSE_BYTES = 16 * 1024 * 1024
"""Unpacked: up to five parents' roots and target lists."""
REQUEST = "request"
"""A copy of the request in the authority's own folder."""
DEFAULT_ENDORSEMENT = dt.timedelta(days=456)
"""The yearly inspection and three months."""


class Request(msgspec.Struct, frozen=True):
    """What an authority asks its parent to endorse (`<code>.authority-request`).

    Attributes:
        code: Its division code.
        name: For people.
        root: Its root, version 1.
        ca_key: The public key of its CA, SubjectPublicKeyInfo.
        v: 1.
    """

    code: Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{12}\Z")]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    root: bytes
    ca_key: bytes
    v: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1

    @property
    def fingerprint(self) -> str:
        """25 characters in five groups, over the whole request: for people to compare."""
        digest = base64.b32encode(hashlib.sha256(encode_request(self)).digest()).decode()
        return "-".join(digest[start : start + 5] for start in range(0, 25, 5))


class Response(msgspec.Struct, frozen=True):
    """The parent's answer (`<code>.authority-response`), zstd of msgpack.

    Attributes:
        code: The endorsed authority.
        parent: Who endorsed it.
        epoch: See SPEC 4.5.
        until: Last day of the endorsement.
        root_sha256: Of the endorsed root version 1.
        ca_chain: PEM: the child's CA certificate, then each issuer, the nation's last.
        objects: Metadata and blobs of the parents under their paths of SPEC 6.3.
        v: 1.
    """

    code: str
    parent: str
    epoch: int
    until: dt.date
    root_sha256: bytes
    ca_chain: bytes
    objects: dict[
        Annotated[
            str,
            msgspec.Meta(pattern=r"\A(metadata/[0-9]{12}/[0-9a-z.]+\.json|blobs/[0-9a-f]{64})\Z"),
        ],
        bytes,
    ]
    v: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a parent is about to sign, shown before the passphrase is asked.

    Attributes:
        request: As read.
        child: Its code.
        scope: The digits that all codes below it start with; computed, never typed.
        epoch: 1, the same again for a renewal, or one more for a new root.
        until: Last day.
        is_renewal: The same root is endorsed already.
    """

    request: Request
    child: Division
    scope: str
    epoch: int
    until: dt.date
    is_renewal: bool


def encode_request(request: Request) -> bytes:
    """For the request file."""
    return msgspec.msgpack.encode(request)


def read_request(path: Path) -> Request:
    """Read a request and check that it is whole: its root signs itself, its CA key is of a known type.

    Raises:
        AuthorityError: `endorse.bad-request`.
    """
    try:
        with path.open("rb") as file:
            return _decode_request(file.read(MAX_REQUEST_BYTES + 1))
    except (OSError, ValueError, CuntongError, RepositoryError) as error:
        raise AuthorityError(
            "endorse.bad-request",
            N_("{file} is not an authority's request, or it's damaged. Copy it again."),
            fault=Fault.CONTENT,
            file=str(path),
        ) from error


def _decode_request(data: bytes) -> Request:
    """Raises ValueError, CuntongError or RepositoryError for whatever isn't a whole request."""
    if len(data) > MAX_REQUEST_BYTES:
        raise ValueError("size")
    request = msgspec.msgpack.decode(data, type=Request)
    root: Metadata[Root] = Metadata.from_bytes(request.root)
    if not isinstance(root.signed, Root) or root.signed.version != 1:
        raise ValueError("root")
    root.signed.verify_delegate(ROOT, root.signed_bytes, root.signatures)
    load_public_key(request.ca_key)
    return request


def propose(
    parent: Authority,
    request: Request,
    *,
    until: dt.date | None,
    is_new_epoch: bool,
    now: dt.datetime,
) -> Proposal:
    """Work out what an endorsement would say.

    Raises:
        AuthorityError: `endorse.not-below`, `endorse.other-root`, `endorse.same-root`, `endorse.bad-until`,
            `endorse.expired-root`.
    """
    child = Division(request.code)
    if not child.is_below(parent.code):
        raise AuthorityError(
            "endorse.not-below",
            N_("{child} doesn't lie below {place}, so it can't be endorsed here."),
            child=child,
            place=parent.code,
        )
    end = (now + DEFAULT_ENDORSEMENT).date() if until is None else until
    if end <= now.date():
        raise AuthorityError(
            "endorse.bad-until",
            N_(
                "The endorsement would end on {date}, which is not in the future. Choose another --until."
            ),
            fault=Fault.USAGE,
            date=end.isoformat(),
        )
    if Metadata[Root].from_bytes(request.root).signed.is_expired(now):
        raise AuthorityError(
            "endorse.expired-root",
            N_("The root of {child} has ended. It must be made anew: cuntong authority init"),
            child=child,
        )
    before = parent.endorsement(child)
    epoch, is_same = 1, False
    if before is not None:
        epoch = int(before.custom["epoch"])
        is_same = before.hashes["sha256"] == hashlib.sha256(request.root).hexdigest()
        if not is_same and not is_new_epoch:
            raise AuthorityError(
                "endorse.other-root",
                N_(
                    "{child} is endorsed with another root. If it has lost its keys and starts afresh, use --new-epoch."
                ),
                child=child,
            )
        if is_same and is_new_epoch:
            raise AuthorityError(
                "endorse.same-root",
                N_("{child} is endorsed with this very root: a new epoch needs a new root."),
                fault=Fault.USAGE,
                child=child,
            )
        epoch += 0 if is_same else 1
    return Proposal(request, child, child.prefix, epoch, end, is_same)


def endorse(
    repository: AuthorityRepository,
    proposal: Proposal,
    signers: Sequence[Signer],
    ca_key: PrivateKey,
    *,
    now: dt.datetime,
    sources: Sequence[ReadObject] = (),
) -> Response:
    """Sign the endorsement and the child's CA certificate, and make the response.

    Args:
        repository: The parent's.
        proposal: From `propose`.
        signers: With the targets key.
        ca_key: The parent's CA key.
        now: UTC.
        sources: Where newer metadata of the parents may be found than at the last `install`.

    Raises:
        AuthorityError: those of `propose` and `AuthorityRepository.edit`, `authority.no-ca`.
        EnrolmentError: from the CA.
    """
    child = proposal.child
    chain = ca_chain(repository)
    child_key = load_public_key(proposal.request.ca_key)
    certificate = sign_ca(child, child_key, chain[0], ca_key, now=now)
    pem = chain_pem([certificate])

    def change(draft: Draft) -> None:
        renewed = propose(
            draft.current,
            proposal.request,
            until=proposal.until,
            is_new_epoch=not proposal.is_renewal and proposal.epoch > 1,
            now=now,
        )
        custom: dict[str, str | int] = {
            "scope": renewed.scope,
            "epoch": renewed.epoch,
            "until": renewed.until.isoformat(),
        }
        draft.add_target("targets", f"auth/{child}.root.json", proposal.request.root, custom)
        draft.add_target("targets", f"ca/{child}.pem", pem, {})

    authority = repository.edit(change, signers, now=now)
    return Response(
        str(child),
        str(authority.code),
        proposal.epoch,
        proposal.until,
        hashlib.sha256(proposal.request.root).digest(),
        pem + chain_pem(chain),
        collect_metadata(
            [
                authority_objects(repository.path, authority.code),
                *sources,
                folder_objects(repository.path / "parents"),
            ],
            child,
        ),
    )


def encode_response(response: Response) -> bytes:
    """For the response file."""
    return zstandard.compress(msgspec.msgpack.encode(response), 19)


def read_response(path: Path) -> Response:
    """Read a response file; nothing in it is believed yet.

    Raises:
        AuthorityError: `install.bad-response`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_RESPONSE_BYTES + 1)
        # A frame that doesn't state its size, or states too much, isn't unpacked.
        size = zstandard.frame_content_size(data)
        packed = zstandard.decompress(data) if 0 < size <= MAX_RESPONSE_BYTES else b""
        return msgspec.msgpack.decode(packed, type=Response)
    except (OSError, ValueError, zstandard.ZstdError) as error:
        raise AuthorityError(
            "install.bad-response",
            N_("{file} is not a parent's response, or it's damaged. Copy it again."),
            fault=Fault.CONTENT,
            file=str(path),
        ) from error


def install(
    repository: AuthorityRepository, response: Response, *, now: dt.datetime
) -> x509.Certificate:
    """Keep the CA chain, the parents' metadata, and until when the endorsement lasts.

    Returns:
        The nation's CA certificate, whose fingerprint a person should compare at the first time.

    Raises:
        AuthorityError: `install.not-ours`, `install.bad-chain`, `install.older`.
    """
    current = repository.load()
    anchor = check_response(repository, current, response)

    def change(draft: Draft) -> None:
        endorsement = Endorsement(response.parent, response.epoch, response.until)
        draft.new.settings = msgspec.structs.replace(
            draft.current.settings, endorsement=endorsement
        )
        draft.files["ca.pem"] = response.ca_chain
        draft.files.update({f"parents/{path}": data for path, data in response.objects.items()})
        draft.files[SETTINGS] = encode_settings(draft.new.settings)

    repository.edit(change, (), now=now)
    return anchor


def check_response(
    repository: AuthorityRepository, current: Authority, response: Response
) -> x509.Certificate:
    """Check that a response is for this authority's present keys; returns the nation's CA certificate."""
    own_root = (repository.path / "metadata" / "1.root.json").read_bytes()
    if response.code != current.code or hashlib.sha256(own_root).digest() != response.root_sha256:
        raise AuthorityError(
            "install.not-ours",
            N_(
                "This response is for {child} with other keys; here is {place}. Ask for the right one."
            ),
            child=response.code,
            place=current.code,
        )
    before = current.settings.endorsement
    if before is not None and response.epoch < before.epoch:
        raise AuthorityError(
            "install.older", N_("This response is older than the one installed. Ask for a new one.")
        )
    try:
        chain = load_chain(response.ca_chain)
        check_chain(chain[:-1], chain[-1])
        codes = [ca_code(certificate) for certificate in chain]
        is_ours = (
            codes[:2] == [current.code, response.parent]
            and codes[-1] == NATION
            and key_id(checked_public_key(chain[0].public_key())) == current.settings.keys["ca"]
        )
    except (CuntongError, ValueError):
        is_ours = False
    if not is_ours:
        raise AuthorityError(
            "install.bad-chain",
            N_(
                "The certificates in this response don't lead from {place} to the nation. Ask {parent} for a new one."
            ),
            place=current.code,
            parent=response.parent,
        )
    return chain[-1]


def ca_chain(repository: AuthorityRepository) -> list[x509.Certificate]:
    """This authority's CA certificate, then each issuer, the nation's last.

    Raises:
        AuthorityError: `authority.no-ca` before the parent's response is installed.
    """
    try:
        return load_chain((repository.path / "ca.pem").read_bytes())
    except FileNotFoundError:
        raise AuthorityError(
            "authority.no-ca",
            N_(
                "This authority has no CA certificate yet. Install the parent's response: cuntong authority install"
            ),
        ) from None


def write_file(path: Path, data: bytes) -> None:
    """Write a request or response for a person to carry.

    Raises:
        AuthorityError: `authority.cannot-write`.
    """
    try:
        write_atomically(path, data)
    except OSError as error:
        raise AuthorityError(
            "authority.cannot-write",
            N_(
                "{folder} can't be written: {reason}. Nothing was changed; mend that and try again."
            ),
            fault=Fault.SYSTEM,
            folder=str(path.parent),
            reason=error.strerror or str(error),
        ) from error
