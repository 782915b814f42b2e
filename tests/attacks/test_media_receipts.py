"""Receipts that nobody should believe, and what they may do to the node that reads them (SPEC 12.6)."""

from __future__ import annotations

import base64
import os
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cuntong_daemon.control.media_messages import (
    ImportResult,
    MadeReceipt,
    MediaStatus,
    TakenReceipt,
)
from cuntong_daemon.media.receipts import Identity, checked_receipt, load_identity, qr_of
from cuntong_daemon.pki.certificates import certificate_der, certificate_spki
from cuntong_protocol.divisions import Division
from cuntong_protocol.enrolment import public_key_der
from cuntong_protocol.errors import CuntongError
from cuntong_protocol.media.papers import (
    MAX_QR_CHARS,
    MAX_RECEIPT_BYTES,
    Receipt,
    SignedReceipt,
    Subscriptions,
    receipt_text,
    shortened,
    sign_receipt,
)
from cuntong_protocol.paper_text import paper_as_text
from tests.support import pki, trust_repo
from tests.support.payloads import random_bytes
from tests.support.pki import DONGGUAN, GUANGDONG, JIEYANG, JIEYANG_VILLAGE, NATION, VILLAGE, Line
from tests.support.volumes import Post, ask, import_at, running_node, until

NETWORK = random_bytes(32, 1)
NEIGHBOUR = Division("441900003006")
ORDERS = tuple(f"441900000000/202611/{'x' * 60}{number}" for number in range(500))


@pytest.fixture
def cas(tmp_path: Path) -> pki.World:
    return pki.World("ed25519", tmp_path / "cas")


def identity(cas: pki.World, code: Division, issuer: Division = DONGGUAN) -> Identity:
    keys, _ = cas.node(code, issuer)
    return load_identity(code, keys)


def spki(it: Identity) -> bytes:
    return certificate_spki(it.chain[0])


@pytest.fixture
def county(cas: pki.World) -> Identity:
    return identity(cas, DONGGUAN)


@pytest.fixture
def village(cas: pki.World) -> Identity:
    return identity(cas, VILLAGE)


def receipt(code: Division = VILLAGE, **more: Any) -> Receipt:
    said: dict[str, Any] = {
        "code": str(code),
        "number": 1,
        "made_at": 1_000,
        "proven_time": 900,
        "network": NETWORK,
        "is_all": True,
        "held": shortened({random_bytes(32, 5)}),
    }
    return Receipt(**(said | more))


def signed(said: Receipt, by: Identity, chain: tuple[bytes, ...] | None = None) -> SignedReceipt:
    return sign_receipt(said, by.key, by.chain_der if chain is None else chain)


def take(paper: SignedReceipt | str, at: Identity, members: Any = None) -> Receipt:
    text = paper if isinstance(paper, str) else receipt_text(paper)
    return checked_receipt(text, identity=at, network=NETWORK, members=members or {})[0]


def refused(paper: SignedReceipt | str, at: Identity, members: Any = None) -> str:
    with pytest.raises(CuntongError) as caught:
        take(paper, at, members)
    return caught.value.code


# --- Who signed -----------------------------------------------------------------------------------


def test_receipt_of_a_village_is_taken_from_any_mail(county: Identity, village: Identity) -> None:
    said = receipt()
    text = receipt_text(signed(said, village))
    chance = random.Random(1)
    spread = "".join(it + chance.choice(["", " ", "\r\n", "\t\u3000"]) for it in text)
    for form in (text, text.replace("\n", ""), text.lower(), text.replace("\n", "\r\n"), spread):
        assert take(form, county) == said


@pytest.mark.filterwarnings("ignore:Parsed a")  # Of the library, about serial numbers and the like.
@pytest.mark.parametrize("step", range(7))
def test_receipt_with_changed_characters_is_refused(
    county: Identity, village: Identity, step: int
) -> None:
    text = receipt_text(signed(receipt(), village)).replace("\n", "")
    first = len("CUNTONG:RECEIPT:")
    for at in range(
        first + step, len(text) - 2, 7
    ):  # The last ones may hold bits that nobody reads.
        changed = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        try:
            # What isn't signed may change, if it proves the same all the same.
            assert take(changed, county) == receipt()
        except CuntongError as error:
            assert error.code in (  # noqa: PT017  Either may happen.
                "media.bad-receipt",
                "media.forged-receipt",
                "media.newer-version",
                "media.unknown-key",  # It has no chain any more.
            )


def test_neighbours_key_under_the_villages_name_is_refused(
    cas: pki.World, county: Identity, village: Identity
) -> None:
    neighbour = identity(cas, NEIGHBOUR)
    assert refused(signed(receipt(), neighbour), county) == "media.forged-receipt"
    # With the village's own chain, which everybody can have.
    stolen = signed(receipt(), neighbour, village.chain_der)
    assert refused(stolen, county) == "media.forged-receipt"
    # And with its public key.
    claimed = msgspec.structs.replace(stolen, public_key=public_key_der(village.key.public_key()))
    assert refused(claimed, county) == "media.forged-receipt"


def test_chain_of_another_nation_is_refused(
    tmp_path: Path, county: Identity, village: Identity
) -> None:
    other = identity(pki.World("ed25519", tmp_path / "other"), VILLAGE)
    assert refused(signed(receipt(), other), county) == "media.forged-receipt"
    crossed = (other.chain_der[0], *village.chain_der[1:])
    assert refused(signed(receipt(), other, crossed), county) == "media.forged-receipt"


def test_certificate_that_a_village_signs_for_another_is_refused(
    cas: pki.World, county: Identity, village: Identity
) -> None:
    neighbour = identity(cas, NEIGHBOUR)
    forged = pki.forge_node(
        pki.dns(NEIGHBOUR.dns_name),
        neighbour.key,
        village.chain[0].subject,
        village.key,
    )
    chain = (certificate_der(forged), *village.chain_der)
    paper = signed(receipt(NEIGHBOUR), neighbour, chain)
    assert refused(paper, county) == "media.forged-receipt"


@pytest.mark.parametrize(
    "chain",
    [
        (b"\x30\x03\x02\x01\x00",),
        (random_bytes(4096, 3),),
        (b"\x30",) * 8,
    ],
)
def test_rubbish_for_a_chain_is_refused(
    county: Identity, village: Identity, chain: tuple[bytes, ...]
) -> None:
    assert refused(signed(receipt(), village, chain), county) == "media.forged-receipt"


def test_chain_in_another_order_or_with_pieces_missing_is_refused(
    county: Identity, village: Identity
) -> None:
    whole = village.chain_der
    assert len(whole) > 1
    for chain in (whole[::-1], whole[:1], (*whole, whole[-1]), (whole[0], *whole)):
        assert refused(signed(receipt(), village, chain), county) == "media.forged-receipt"


def test_removed_place_is_not_believed(county: Identity, village: Identity) -> None:
    members = {DONGGUAN: {VILLAGE: Line(spki(village), "removed", reason="moved")}}
    for chain in (village.chain_der, ()):
        assert refused(signed(receipt(), village, chain), county, members) == "node.removed"


def test_key_that_was_removed_further_up_is_not_believed(
    county: Identity, village: Identity
) -> None:
    members = {GUANGDONG: {VILLAGE: Line(spki(village), "removed", reason="stolen")}}
    assert refused(signed(receipt(), village), county, members) == "node.removed"


def test_old_key_of_a_place_that_was_enrolled_again_is_not_believed(
    cas: pki.World, county: Identity, village: Identity
) -> None:
    again = identity(cas, VILLAGE)
    members = {DONGGUAN: {VILLAGE: Line(spki(again))}}
    said = receipt()
    assert take(signed(said, again), county, members) == said
    assert refused(signed(said, village), county, members) == "node.other-key"
    assert refused(signed(said, village, ()), county, members) == "media.unknown-key"


def test_without_a_chain_a_members_list_must_know_the_key(
    cas: pki.World, county: Identity, village: Identity
) -> None:
    bare = signed(receipt(), village, ())
    assert refused(bare, county) == "media.unknown-key"
    other = {DONGGUAN: {VILLAGE: Line(random_bytes(32, 2)), NEIGHBOUR: Line(spki(village))}}
    assert refused(bare, county, other) == "media.unknown-key"
    assert take(bare, county, {DONGGUAN: {VILLAGE: Line(spki(village))}}) == receipt()
    # Members of somebody who has nothing to do with the village.
    foreign = {JIEYANG: {VILLAGE: Line(spki(village))}}
    assert refused(bare, county, foreign) == "media.unknown-key"


# --- What is said ---------------------------------------------------------------------------------


def test_receipt_of_another_network_is_refused(county: Identity, village: Identity) -> None:
    foreign = signed(receipt(network=bytes(32)), village)
    assert refused(foreign, county) == "media.foreign-receipt"


def test_receipts_of_places_beside_are_of_no_use_and_those_above_are_taken(
    cas: pki.World, county: Identity, village: Identity
) -> None:
    beside = identity(cas, JIEYANG_VILLAGE, JIEYANG)
    assert refused(signed(receipt(JIEYANG_VILLAGE), beside), county) == "media.not-below"
    assert refused(signed(receipt(DONGGUAN), county), county) == "media.not-below"
    neighbour = identity(cas, NEIGHBOUR)
    assert refused(signed(receipt(NEIGHBOUR), neighbour), village) == "media.not-below"
    for code in (GUANGDONG, NATION):
        above = identity(cas, code, code)
        assert take(signed(receipt(code), above), county).code == code


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"number": 0},
        {"number": 2**63},
        {"made_at": -1},
        {"made_at": 2**41},
        {"code": "44190000300"},
        {"catalogues": {"99": 1}},
        {"catalogues": {f"{number:012}": 1 for number in range(6_000)}},
        {"orders": ("x" * 101,)},
        {"orders": ("x",) * 501},
        {"sets": {"ABCDEFGHIJ": (1,)}},
        {"sets": {"abcdefghij": (0,)}},
        {"sets": {"abcdefghij": (1,) * 10_000}},
        {"sets": {f"abcdefghi{letter}": (1,) for letter in "abcdefghijklmnopq"}},
        {"free": -1},
        {"held": bytes(MAX_RECEIPT_BYTES + 8)},
        {"network": bytes(31)},
        {"subscriptions": Subscriptions(groups=["x"] * 257)},
        {"subscriptions": Subscriptions(categories=[""])},
    ],
    ids=lambda change: next(iter(change)),
)
def test_values_that_cannot_be_are_refused(
    county: Identity, village: Identity, change: dict[str, Any]
) -> None:
    paper = signed(receipt(**change), village)
    assert refused(paper, county) in ("media.bad-receipt", "media.newer-version")


def test_receipts_as_long_as_they_may_be_are_taken(county: Identity, village: Identity) -> None:
    held = shortened({random_bytes(32, number) for number in range(100_000)})
    said = receipt(held=held, orders=ORDERS)
    assert len(take(signed(said, village), county).holdings) == 100_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CUNTONG:RECEIPT:",
        "CUNTONG:RECEIPT:!!!!",
        "CUNTONG:REQUEST:AAAA",
        "CUNTONG:RECEIPT:" + "A" * (1 << 20),
        "CUNTONG:RECEIPT:" + "A" * (16 << 20),
        " " * (16 << 20),
        ":" * 100_000,
        "CUNTONG:RECEIPT:\u212a\u0131\ufb00",
        "CUNTONG:RECEIPT:" + base64.b32encode(b"\x91" * 100_000).decode(),
        "CUNTONG:RECEIPT:" + base64.b32encode(b"\x81" * 100_000).decode(),
        "CUNTONG:RECEIPT:" + base64.b32encode(b"\xdf\xff\xff\xff\xff").decode(),
        random_bytes(1 << 20, 8).decode("latin-1"),
    ],
    ids=[str(number) for number in range(13)],
)
def test_rubbish_is_no_receipt(county: Identity, text: str) -> None:
    assert refused(text, county) == "media.bad-receipt"


@pytest.mark.filterwarnings("ignore:Parsed a")
@pytest.mark.parametrize("seed", range(60))
def test_signed_rubbish_is_no_receipt(county: Identity, village: Identity, seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray(msgspec.msgpack.encode(signed(receipt(), village)))
    for _ in range(chance.randint(1, 5)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    code = refused(paper_as_text("RECEIPT", bytes(data)), county)
    assert code.startswith("media.")


# --- QR codes -------------------------------------------------------------------------------------


def many(count: int) -> bytes:
    return shortened({random_bytes(32, number) for number in range(count)})


def test_qr_code_holds_as_much_as_fits_and_what_came_last_first(
    county: Identity, village: Identity
) -> None:
    last = [random_bytes(32, number) for number in range(5)]
    said = receipt(held=many(2_000), catalogues={"000000000000": 5})
    text = qr_of(said, village, last)
    assert 0 < len(text) <= MAX_QR_CHARS
    members = {DONGGUAN: {VILLAGE: Line(spki(village))}}
    taken = take(text, county, members)
    assert not taken.is_all
    assert len(taken.holdings) > 200
    assert {infohash[:8] for infohash in last} <= taken.holdings
    assert take(text.lower(), county, members) == taken


def test_qr_code_of_a_small_store_says_everything(county: Identity, village: Identity) -> None:
    text = qr_of(receipt(held=many(20)), village, ())
    assert take(text, county, {DONGGUAN: {VILLAGE: Line(spki(village))}}).is_all


@pytest.mark.parametrize(
    "more",
    [
        {"sets": {f"abcdefgh{letter}j": tuple(range(1, 901)) for letter in "abcdef"}},
        {"subscriptions": Subscriptions(categories=["opera/film" * 5] * 200)},
        {"orders": ORDERS},
    ],
    ids=["sets", "subscriptions", "orders"],
)
def test_place_with_much_else_to_say_still_fits_its_holdings_into_a_qr_code(
    county: Identity, village: Identity, more: dict[str, Any]
) -> None:
    text = qr_of(receipt(held=many(50), **more), village, ())
    assert text
    taken = take(text, county, {DONGGUAN: {VILLAGE: Line(spki(village))}})
    assert len(taken.holdings) == 50


# --- At a whole node ------------------------------------------------------------------------------


@pytest.fixture
def post(tmp_path: Path) -> Post:
    return Post(tmp_path / "post")


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    folder = tmp_path / "stick"
    folder.mkdir()
    return folder


def of_village(post: Post, number: int, by: Identity, **more: Any) -> str:
    said = receipt(number=number, network=post.network, **more)
    return receipt_text(signed(said, by))


async def test_older_receipt_is_refused_and_orders_nothing(post: Post) -> None:
    village = post.identity(trust_repo.VILLAGE)
    async with running_node(post.enrol("county", trust_repo.COUNTY)) as node:
        taken = await ask(
            node, "media.receipt", {"text": of_village(post, 5, village)}, TakenReceipt
        )
        assert (taken.number, taken.payloads) == (5, 1)
        before = set(node.replicator._demanded)
        old = of_village(post, 4, village, orders=("000000000000/202611/old",))
        with pytest.raises(CuntongError) as caught:
            await ask(node, "media.receipt", {"text": old}, TakenReceipt)
        assert caught.value.code == "media.old-receipt"
        assert node.replicator._demanded == before
        status = await ask(node, "media.status", {}, MediaStatus)
        assert [(place.code, place.number) for place in status.places] == [(VILLAGE, 5)]


async def test_place_that_lost_its_data_directory_is_believed_again(
    post: Post, stick: Path
) -> None:
    lot = post.publish("films", {"a.mp4": random_bytes(50_000, 3)})
    post.volume(stick, lot)

    async def report(name: str) -> str:
        async with running_node(post.enrol(name)) as node:
            await import_at(node, stick)
            made = await ask(node, "media.report", {}, MadeReceipt)
            return made.text

    texts = [await report("village"), await report("village-again")]
    async with running_node(post.enrol("county", trust_repo.COUNTY)) as node:
        numbers = [
            (await ask(node, "media.receipt", {"text": text}, TakenReceipt)).number
            for text in texts
        ]
        assert len(numbers) == 2


async def test_receipts_on_a_medium_that_are_rubbish_are_told_and_stop_nothing(
    post: Post, stick: Path
) -> None:
    lot = post.publish("films", {"a.mp4": random_bytes(50_000, 3)})
    post.volume(stick, lot)
    village = post.identity(trust_repo.VILLAGE)
    (stick / f"{VILLAGE}.receipt").write_text(of_village(post, 3, village))
    (stick / "rubbish.receipt").write_bytes(random_bytes(1 << 20, 4))
    (stick / "empty.receipt").write_bytes(b"")
    (stick / "endless.receipt").write_bytes(b"")
    os.truncate(stick / "endless.receipt", 1 << 40)
    gbk = "收据.receipt".encode("gbk").decode("utf-8", "surrogateescape")
    (stick / gbk).write_bytes(b"CUNTONG:RECEIPT:AAAA")
    (stick / "link.receipt").symlink_to(post.folder)
    async with running_node(post.enrol("county", trust_repo.COUNTY)) as node:
        result: ImportResult = await import_at(node, stick)
        good = [it for it in result.receipts if it.problem is None]
        assert [it.code for it in good] == [VILLAGE]
        assert len(result.receipts) == 5
        codes = {it.problem.code for it in result.receipts if it.problem is not None}
        assert codes <= {"media.bad-receipt", "media.receipt-unreadable"}
        assert (stick / f"{trust_repo.COUNTY}.receipt").exists()


async def test_many_receipts_with_long_orders_can_be_looked_at(post: Post) -> None:
    async with running_node(post.enrol("county", trust_repo.COUNTY)) as node:
        for number in range(110):
            code = Division(f"441900003{number + 100:03}")
            text = receipt_text(
                signed(receipt(code, network=post.network, orders=ORDERS), post.identity(code))
            )
            await ask(node, "media.receipt", {"text": text}, TakenReceipt)
        status = await ask(node, "media.status", {}, MediaStatus)
        assert len(status.places) == 110


async def test_receipt_for_a_place_above_says_what_need_not_be_sent_up(post: Post) -> None:
    province = post.identity(trust_repo.PROVINCE)
    said = receipt(trust_repo.PROVINCE, network=post.network)
    async with running_node(post.enrol("county", trust_repo.COUNTY)) as node:
        text = receipt_text(signed(said, province))
        taken = await ask(node, "media.receipt", {"text": text}, TakenReceipt)
        assert taken.code == trust_repo.PROVINCE


async def test_place_reports_what_it_has(post: Post, stick: Path) -> None:
    lot = post.publish("films", {"a.mp4": random_bytes(50_000, 3)})
    post.volume(stick, lot)
    async with running_node(post.enrol("village")) as node:
        await import_at(node, stick)
        made = await ask(node, "media.report", {}, MadeReceipt)
        await until(lambda: (stick / made.file).exists())
    paths = post.enrol("county", trust_repo.COUNTY)
    async with running_node(paths) as node:
        for text in (made.text.lower(), (stick / made.file).read_text()):
            try:
                taken = await ask(node, "media.receipt", {"text": text}, TakenReceipt)
            except CuntongError as error:
                assert error.code == "media.old-receipt"  # noqa: PT017  Either may happen.
            else:
                assert taken.payloads == 1
                assert taken.is_all
