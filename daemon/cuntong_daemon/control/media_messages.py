"""What the local socket's methods for disks and discs by post answer (SPEC 8, 12)."""

from __future__ import annotations

from typing import Literal

import msgspec

from cuntong_protocol.media.papers import Statistics
from cuntong_protocol.texts import Sentence

HowKnown = Literal["", "link", "receipt"]
ImportPhase = Literal["waiting", "looking", "catalogue", "reading", "checking"]
CatalogueState = Literal["taken", "known", "older", "refused", "foreign"]
ImportState = Literal["complete", "partial", "here", "offered", "unwanted", "unknown", "refused"]


class PlaceKnown(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a place's store.

    Attributes:
        how: By its link or by a receipt; empty: nothing is known, it is taken for empty.
        at: When it was said, seconds since 1970; of a receipt the place's clock.
        payloads: How many it has.
        number: Of its last receipt; 0: none was taken.
        is_all: The list is complete; else the place may have more.
        orders: In a list of places none.
        orders_total: How many there are.
        statistics: From its last receipt.
    """

    code: str
    how: HowKnown = ""
    at: int = 0
    payloads: int = 0
    number: int = 0
    is_all: bool = False
    free: int = 0
    used: int = 0
    orders: list[str] = []
    orders_total: int = 0
    statistics: Statistics | None = None


class OfferedBundle(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle for a volume, an item of `media.offer`; these come in the order in which they should be written.

    Attributes:
        infohash: In hexadecimal.
        payload_size: Bytes of the whole payload.
        deadline: The earliest at one of the places, seconds since 1970.
        reason: Why it goes there.
    """

    id: str
    revision: int
    title: str = ""
    infohash: str
    payload_size: int
    is_restricted: bool = False
    deadline: int | None = None
    reason: Sentence | None = None


class OfferedCatalogue(msgspec.Struct, frozen=True, kw_only=True):
    """An authority whose verified catalogue goes onto a volume; `sha256` is its timestamp's, in hexadecimal."""

    authority: str
    version: int
    sha256: str


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """The end of `media.offer`.

    Attributes:
        code: Of this node, which exports.
        name: What people call it.
        network: In hexadecimal (SPEC 12.3).
        places: For whom, and what is known of them.
        catalogues: What they follow and this node has verified.
        present: Infohashes, in hexadecimal, of payloads that every one of the places has and whose torrents are
            here: what they hold need not be written again.
        had: Bundles that are left out since every place has them.
        not_for: Bundles left out that none of the places may have or wants.
        not_here: Bundles that should go and aren't complete here; at most 500.
    """

    code: str
    name: str = ""
    network: str
    places: list[PlaceKnown] = []
    catalogues: list[OfferedCatalogue] = []
    present: list[str] = []
    had: int = 0
    not_for: int = 0
    not_here: list[OfferedBundle] = []


class ImportStep(msgspec.Struct, frozen=True, kw_only=True):
    """An item of `media.import`: how far it is.

    Attributes:
        phase: `waiting` for another import, `looking` for volumes, `catalogue`, `reading` content from the medium,
            `checking` what was written.
        folder: Of the volume that is read now.
        number: Of that volume; 0: not known.
        count: Of volumes in its set; 0: not known.
        id: Of the bundle that is read now.
        bytes_done: Of that bundle, on this volume.
        bytes_total: Of it.
    """

    phase: ImportPhase
    folder: str = ""
    number: int = 0
    count: int = 0
    id: str = ""
    title: str = ""
    bytes_done: int = 0
    bytes_total: int = 0


class ImportedVolume(msgspec.Struct, frozen=True, kw_only=True):
    """A volume that was found. `problem`: why nothing was taken from it, or why less is known of it."""

    folder: str
    serial: str = ""
    number: int = 0
    count: int = 0
    by: str = ""
    made_at: int = 0
    places: list[str] = []
    is_refused: bool = False
    problem: Sentence | None = None


class ImportedCatalogue(msgspec.Struct, frozen=True, kw_only=True):
    """A catalogue on a volume.

    Attributes:
        version: On the volume.
        version_here: Afterwards.
        state: `taken`; `known`: this node has the same; `older` than this node's; `refused` by the verifier;
            `foreign`: of an authority that this node doesn't follow.
    """

    authority: str
    version: int = 0
    version_here: int = 0
    state: CatalogueState
    problem: Sentence | None = None


class ImportedBundle(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a bundle that lay on a volume.

    Attributes:
        state: `complete`; `partial`: some of it is missing and comes another way, or from another volume; `here`: it was
            complete before; `offered`: kept until it is listed for this place; `unwanted`; `unknown`: no
            catalogue here lists it; `refused`: what was signed can't be used.
        bytes_taken: From the medium.
        bytes_missing: Of the payload, afterwards.
        is_in_place: It is held on the medium itself.
        reason: Of `unwanted` and `refused`, and what is wrong with it else.
    """

    id: str = ""
    title: str = ""
    revision: int = 0
    infohash: str
    state: ImportState
    bytes_total: int = 0
    bytes_taken: int = 0
    bytes_missing: int = 0
    is_in_place: bool = False
    reason: Sentence | None = None


class TakenReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `media.receipt`, and what an import found of receipts on the medium. `problem`: it wasn't taken."""

    code: str = ""
    number: int = 0
    payloads: int = 0
    is_all: bool = True
    orders: list[str] = []
    made_at: int = 0
    file: str = ""
    problem: Sentence | None = None


class MadeReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `media.report`.

    Attributes:
        text: The receipt as text.
        qr: The same for a QR code, with as much as fits; empty: not even the least does.
        file: What a file of it is called.
    """

    code: str
    number: int
    file: str
    text: str
    qr: str = ""


class SetSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A set of volumes of which this node has imported some; `missing` are the numbers of the others."""

    serial: str
    by: str = ""
    made_at: int = 0
    count: int = 0
    imported: list[int] = []
    missing: list[int] = []


class ImportResult(msgspec.Struct, frozen=True, kw_only=True):
    """The end of `media.import`.

    Attributes:
        bundles: Those with something to say first; at most 1,000 of `bundles_total`.
        receipt_file: Where the receipt was written on the medium; empty: it wasn't.
        receipt_problem: Why not.
        bytes_read: Of content.
        bytes_bad: Of it, what wasn't right where it lay and was nowhere else either.
        problems: What a person should know beside that.
    """

    volumes: list[ImportedVolume] = []
    catalogues: list[ImportedCatalogue] = []
    bundles: list[ImportedBundle] = []
    bundles_total: int = 0
    receipts: list[TakenReceipt] = []
    sets: list[SetSeen] = []
    receipt_file: str = ""
    receipt_problem: Sentence | None = None
    bytes_read: int = 0
    bytes_bad: int = 0
    problems: list[Sentence] = []


class InPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle that is held on a medium."""

    id: str
    title: str = ""
    folder: str
    size: int = 0


class MediaStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `media.status`.

    Attributes:
        running: The import that runs now.
        sets: Those of which volumes were imported, the last first.
        in_place: What is held on mounted media.
        offers: Payloads that came by medium and wait until they are listed for this place.
        places: What is known of other places' stores; at most 500.
        watched: Folders below which media are imported by themselves.
    """

    running: ImportStep | None = None
    sets: list[SetSeen] = []
    in_place: list[InPlace] = []
    offers: int = 0
    places: list[PlaceKnown] = []
    watched: list[str] = []
