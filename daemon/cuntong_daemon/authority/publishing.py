"""What an authority says about bundles: publish, promote with two reviewers, withdraw (SPEC 4.2)."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from securesystemslib.signer import Signer  # type: ignore[attr-defined]  # No __all__.
from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata, TargetFile, Targets  # type: ignore[attr-defined]  # No __all__.

from cuntong_protocol.bundle.descriptor import Descriptor, decode_descriptor, parse_bundle_id
from cuntong_protocol.divisions import Division
from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_
from cuntong_protocol.trust.custom import Listed, format_time
from cuntong_protocol.trust.names import PROMOTED, WITHDRAWN

from .documents import Authority, make_target
from .keys import AuthorityError
from .repository import PENDING, AuthorityRepository, Draft, check_clock

MAX_REASON_CHARS = 200


@dataclass(frozen=True, slots=True)
class Promotion:
    """What became of a promotion.

    Attributes:
        bundles: Everything it holds.
        signed: How many reviewers have signed.
        needed: How many must.
        is_published: It's in force; otherwise it waits for the rest.
    """

    bundles: tuple[str, ...]
    signed: int
    needed: int
    is_published: bool


def publisher_of(bundle: str) -> Division:
    """The publisher in a bundle's id.

    Raises:
        BundleError: `bundle.bad-id`.
    """
    return parse_bundle_id(bundle).code


def custom_fields(listing: Listed) -> dict[str, str | int]:
    """The custom fields of a bundle's target (SPEC 4.2)."""
    return {
        "rev": listing.revision,
        "payload": listing.payload_size,
        "infohash": listing.infohash,
    }


def require_endorsed(authority: Authority, now: dt.datetime) -> None:
    """Nodes don't follow an authority whose endorsement has ended, so it must not publish unknowingly.

    Raises:
        AuthorityError: `authority.not-endorsed`, `authority.endorsement-expired`.
    """
    if authority.code.parent is None:
        return
    endorsement = authority.settings.endorsement
    if endorsement is None:
        raise AuthorityError(
            "authority.not-endorsed",
            N_(
                "{place} isn't endorsed yet. Give its request to the parent, then run: cuntong authority install RESPONSE"
            ),
            place=authority.code,
        )
    if now.date() > endorsement.until:
        raise AuthorityError(
            "authority.endorsement-expired",
            N_(
                "The endorsement of {place} by {parent} ended on {date}. Ask {parent} for a new one and install it."
            ),
            place=authority.code,
            parent=endorsement.parent,
            date=endorsement.until.isoformat(),
        )


def publish(
    repository: AuthorityRepository,
    listing: Listed,
    descriptor: bytes,
    signers: Sequence[Signer],
    *,
    now: dt.datetime,
) -> Authority:
    """List a bundle of this authority's own, new or as the next revision.

    Raises:
        AuthorityError: `publish.out-of-scope`, `publish.exists`, `publish.old-revision`,
            `publish.withdrawn`, `authority.endorsement-expired`, and those of `AuthorityRepository.edit`.
    """

    def change(draft: Draft) -> None:
        check_may_publish(draft.current, listing.id, listing.revision, now)
        month = listing.id.split("/")[1]
        draft.add_month(month)
        draft.add_target(month, listing.id, descriptor, custom_fields(listing))

    return repository.edit(change, signers, now=now)


def check_may_publish(authority: Authority, bundle: str, revision: int, now: dt.datetime) -> None:
    """Everything that would refuse `publish`, before anything is built."""
    if publisher_of(bundle) != authority.code:
        raise AuthorityError(
            "publish.out-of-scope",
            N_("{id} isn't this authority's own: here is {place}."),
            id=bundle,
            place=authority.code,
        )
    require_endorsed(authority, now)
    if authority.is_withdrawn(bundle):
        raise AuthorityError(
            "publish.withdrawn",
            N_("{id} was withdrawn, and that is for good. Publish under another slug."),
            id=bundle,
        )
    before = authority.listing(bundle)
    if before is None:
        return
    if revision == 1:
        raise AuthorityError(
            "publish.exists",
            N_("{id} is published already. To change it: cuntong revise {id} FOLDER"),
            id=bundle,
        )
    if revision_of(before) >= revision:
        raise AuthorityError(
            "publish.old-revision",
            N_("Revision {revision} of {id} is published already. Start again from it."),
            id=bundle,
            revision=revision_of(before),
        )


def withdraw(
    repository: AuthorityRepository,
    bundle: str,
    reason: str,
    signers: Sequence[Signer],
    *,
    now: dt.datetime,
) -> Authority:
    """Withdraw a bundle of this authority or of one below, for good. One key is enough.

    Raises:
        AuthorityError: `publish.out-of-scope`, `publish.withdrawn`, `publish.unknown`, `publish.bad-reason`, and
            those of `edit`.
    """

    def change(draft: Draft) -> None:
        check_may_withdraw(draft.current, bundle, reason)
        custom: dict[str, str | int] = {"reason": reason, "at": format_time(now)}
        draft.add_target(WITHDRAWN, f"withdrawn/{bundle}", b"", custom)

    return repository.edit(change, signers, now=now)


def check_may_withdraw(authority: Authority, bundle: str, reason: str) -> None:
    """Everything that would refuse `withdraw`, before a passphrase is asked."""
    if not publisher_of(bundle).is_within(authority.code):
        raise AuthorityError(
            "publish.out-of-scope",
            N_("{id} doesn't lie below {place}: only its publisher or those above may do this."),
            id=bundle,
            place=authority.code,
        )
    if authority.is_withdrawn(bundle):
        raise AuthorityError("publish.withdrawn", N_("{id} is withdrawn already."), id=bundle)
    if publisher_of(bundle) == authority.code and authority.listing(bundle) is None:
        raise AuthorityError(
            "publish.unknown",
            N_("{id} was never published here. Is it the right id?"),
            fault=Fault.USAGE,
            id=bundle,
        )
    if not reason.strip() or len(reason) > MAX_REASON_CHARS or not reason.isprintable():
        raise AuthorityError(
            "publish.bad-reason",
            N_("A reason is one line of 1 to {count} characters: people below will read it."),
            fault=Fault.USAGE,
            count=MAX_REASON_CHARS,
        )


def pending_promotion(
    repository: AuthorityRepository, current: Authority
) -> Metadata[Targets] | None:
    """The promotion that waits for another reviewer; None when there is none, or it's out of date."""
    try:
        pending: Metadata[Targets] = Metadata.from_bytes((repository.path / PENDING).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RepositoryError):
        return None
    now = current.roles[PROMOTED].signed
    is_current = pending.signed.version == now.version + 1
    return pending if is_current and pending.signed.expires == current.root.signed.expires else None


def pending_listings(current: Authority, pending: Metadata[Targets]) -> dict[str, Listed]:
    """What a pending promotion would add or change."""
    before = current.promoted()
    return {
        path: listing_of(target)
        for path, target in pending.signed.targets.items()
        if path not in before or before[path] != target
    }


def listing_of(target: TargetFile) -> Listed:
    """One of our own targets as a listing."""
    custom = custom_of(target)
    return Listed(
        target.path,
        target.hashes["sha256"],
        target.length,
        int(custom["rev"]),
        int(custom["payload"]),
        str(custom["infohash"]),
    )


def revision_of(target: TargetFile) -> int:
    """The revision of one of our own targets."""
    return int(custom_of(target)["rev"])


def infohash_of(target: TargetFile) -> str:
    """The v2 infohash of the payload that one of our own targets lists, in hexadecimal."""
    return str(custom_of(target)["infohash"])


def custom_of(target: TargetFile) -> dict[str, str | int]:
    """The custom fields of one of our own targets."""
    custom: dict[str, str | int] = target.custom or {}
    return custom


def check_may_promote(authority: Authority, listing: Listed, now: dt.datetime) -> None:
    """Everything that would refuse a promotion, before a passphrase is asked.

    Raises:
        AuthorityError: `publish.out-of-scope`, `publish.withdrawn`, `promote.already`,
            `authority.endorsement-expired`.
    """
    require_endorsed(authority, now)
    if not publisher_of(listing.id).is_below(authority.code):
        raise AuthorityError(
            "publish.out-of-scope",
            N_("{id} doesn't come from below {place}, so it can't be promoted here."),
            id=listing.id,
            place=authority.code,
        )
    if authority.is_withdrawn(listing.id):
        raise AuthorityError(
            "publish.withdrawn",
            N_("{id} was withdrawn here, so it can't be promoted."),
            id=listing.id,
        )
    before = authority.promoted().get(listing.id)
    if before is not None and revision_of(before) >= listing.revision:
        raise AuthorityError(
            "promote.already",
            N_("{id} is promoted already, in revision {revision}."),
            id=listing.id,
            revision=revision_of(before),
        )


def check_can_be_held(descriptor: Descriptor) -> None:
    """Refuse to promote what nobody more could have: the publisher certifies only nodes below itself (SPEC 7.6).

    Raises:
        AuthorityError: `promote.licence-outside`.
    """
    publisher = descriptor.bundle_id.code
    outside = [
        prefix
        for prefix in descriptor.metadata.licence.scope
        if not prefix.startswith(publisher.prefix)
    ]
    if outside:
        raise AuthorityError(
            "promote.licence-outside",
            N_(
                "The licence of {id} names places that don't lie below its publisher ({places}), and they could not join its swarm. Publish it here under an id of your own."
            ),
            id=descriptor.id,
            places=", ".join(outside),
        )


def sign_promotion(
    repository: AuthorityRepository,
    candidates: Sequence[tuple[Listed, bytes]],
    signers: Sequence[Signer],
    *,
    now: dt.datetime,
) -> Promotion:
    """Sign a promotion. Below the threshold it is kept for the next reviewer; at it, it is published.

    There is one pending promotion at a time. The same reviewer may add to it; another one signs the
    whole of it.

    Args:
        repository: The reviewers' authority.
        candidates: Listeds with their descriptors; empty: sign what is pending.
        signers: The reviewer's (or several reviewers') keys.
        now: UTC.

    Raises:
        AuthorityError: those of `check_may_promote` and `check_can_be_held`, `promote.bad-descriptor`,
            `promote.nothing-pending`, `promote.other-pending`, `promote.signed-already`, `authority.not-signed`.
    """
    current = repository.load()
    check_clock(current, now, is_clock_confirmed=False)
    wanted = {listing.id: listing for listing, _descriptor in candidates}
    blobs = {}
    for listing, descriptor in candidates:
        check_may_promote(current, listing, now)
        if hashlib.sha256(descriptor).hexdigest() != listing.sha256:
            raise AuthorityError(
                "promote.bad-descriptor",
                N_(
                    "The descriptor of {id} isn't here yet or is damaged. Wait for the daemon to fetch it."
                ),
                fault=Fault.TRANSPORT,
                id=listing.id,
            )
        check_can_be_held(decode_descriptor(descriptor, expected_id=listing.id))
        blobs[listing.sha256] = descriptor
    keys, threshold = current.role_keys(PROMOTED)
    own = [signer for signer in signers if signer.public_key.keyid in keys]
    if not own:
        raise AuthorityError(
            "promote.no-reviewer",
            N_("None of these keys is a reviewer's key of {place}. Use a reviewer's stick."),
            place=current.code,
        )
    pending = pending_promotion(repository, current)
    promoted = _next_promotion(
        current, pending, wanted, {signer.public_key.keyid for signer in own}
    )
    for signer in own:
        promoted.sign(signer, append=True)
    bundles = tuple(sorted(pending_listings(current, promoted)))
    try:
        current.targets.verify_delegate(PROMOTED, promoted.signed_bytes, promoted.signatures)
    except UnsignedMetadataError:
        repository.keep_pending(promoted.to_bytes(), blobs)
        return Promotion(bundles, len(promoted.signatures), threshold, is_published=False)

    def change(draft: Draft) -> None:
        if draft.current.roles[PROMOTED].signed.version + 1 != promoted.signed.version:
            raise _nothing_pending()
        for listing in pending_listings(current, promoted).values():
            check_may_promote(draft.current, listing, now)
        draft.blobs.update(blobs)
        draft.changed.add(PROMOTED)
        draft.presigned[PROMOTED] = promoted
        draft.remove.append(PENDING)

    repository.edit(change, (), now=now)
    return Promotion(bundles, len(promoted.signatures), threshold, is_published=True)


def _next_promotion(
    current: Authority,
    pending: Metadata[Targets] | None,
    wanted: dict[str, Listed],
    reviewers: set[str],
) -> Metadata[Targets]:
    """The metadata to be signed: the pending one, that one with more in it, or a new one."""
    if pending is None and not wanted:
        raise _nothing_pending()
    waiting = {} if pending is None else pending_listings(current, pending)
    is_same = all(
        bundle in waiting and waiting[bundle].sha256 == listing.sha256
        for bundle, listing in wanted.items()
    )
    if pending is not None and is_same and (not wanted or set(wanted) == set(waiting)):
        if reviewers <= set(pending.signatures):
            raise AuthorityError(
                "promote.signed-already",
                N_("You signed this already. Now another reviewer runs: cuntong promote"),
            )
        return pending
    if pending is not None and not set(pending.signatures) <= reviewers:
        raise AuthorityError(
            "promote.other-pending",
            N_(
                "First sign or drop what another reviewer has signed ({ids}): cuntong promote, or cuntong promote --drop"
            ),
            ids=", ".join(sorted(waiting)),
        )
    base = current.roles[PROMOTED].signed
    targets = dict(base.targets)
    for bundle, listing in {**waiting, **wanted}.items():
        targets[bundle] = make_target(
            bundle, listing.sha256, listing.length, custom_fields(listing)
        )
    return Metadata(
        Targets(version=base.version + 1, expires=current.root.signed.expires, targets=targets)
    )


def _nothing_pending() -> AuthorityError:
    return AuthorityError(
        "promote.nothing-pending",
        N_(
            "No promotion waits for a signature, or another change overtook it. Name the bundles: cuntong promote ID…"
        ),
        fault=Fault.USAGE,
    )
