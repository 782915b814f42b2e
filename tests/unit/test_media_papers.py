"""What a volume says of itself and what a receipt says: what survives the post, and what is refused (SPEC 12.1 to 12.6)."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

import msgspec
import pytest
import segno
from hypothesis import given, settings
from hypothesis import strategies as st

from cuntong_daemon.pki.certificates import KeyType, new_key
from cuntong_protocol.enrolment import public_key_der, sign
from cuntong_protocol.media.errors import MediaError
from cuntong_protocol.media.layout import (
    DISC_BYTES,
    MAX_COMPONENT_UNITS,
    again,
    catalogue_file,
    is_portable,
    parse_part,
    parse_volume_folder,
    part_file,
    store_file,
    torrent_file,
    volume_folder,
)
from cuntong_protocol.media.papers import (
    MAX_ORDERS,
    MAX_PLACES,
    MAX_QR_CHARS,
    MAX_RECEIPT_BYTES,
    MAX_SET_VOLUMES,
    MAX_SETS,
    MAX_VOLUME_BUNDLES,
    MAX_VOLUME_PAPER_BYTES,
    SHORT,
    Receipt,
    Statistics,
    Subscriptions,
    Volume,
    check_volume,
    decode_receipt,
    decode_volume,
    encode_volume,
    is_receipt,
    receipt_qr_text,
    receipt_text,
    shortened,
    sign_receipt,
)
from tests.vectors.media import make
from tests.vectors.media.make import CHAIN, HERE, KEY, OTHER_KEY, RECEIPT, VILLAGE, VOLUME

INDEX = json.loads((HERE / "index.json").read_text())
INFOHASH = bytes(range(32))
PAPER = encode_volume(VOLUME, KEY, CHAIN)
SIGNED = sign_receipt(RECEIPT, KEY, CHAIN)
TEXT = receipt_text(SIGNED)


def code_of(call: Any, *args: Any) -> str:
    with pytest.raises(MediaError) as caught:
        call(*args)
    assert "{" not in str(caught.value)
    return caught.value.code


# --- Vectors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", INDEX["good"])
def test_good_vector_reads_as_it_always_did(name: str) -> None:
    assert repr(make.read(name, (HERE / make.file_of(name)).read_bytes())) == INDEX["good"][name]


@pytest.mark.parametrize("name", INDEX["bad"])
def test_bad_vector_ends_with_its_code(name: str) -> None:
    data = (HERE / make.file_of(name)).read_bytes()
    assert code_of(make.read, name, data) == INDEX["bad"][name]


def test_every_vector_can_be_made_again() -> None:
    files, index = make.vectors()
    assert index == INDEX
    assert {name: (HERE / name).read_bytes() for name in files} == files


def test_every_file_is_in_the_index() -> None:
    names = {path.stem for kind in ("*.bin", "*.txt") for path in HERE.glob(kind)}
    assert names == INDEX["good"].keys() | INDEX["bad"].keys()


def test_schema_is_the_golden_one() -> None:
    assert make.schema() == json.loads((HERE / "schema.json").read_text())


# --- Where things lie -----------------------------------------------------------------------------


@given(st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=10, max_size=10), st.integers(1, 9999))
def test_folder_of_a_volume_names_set_and_number(serial: str, number: int) -> None:
    assert parse_volume_folder(volume_folder(serial, number)) == (serial, number)


@pytest.mark.parametrize(
    ("serial", "number"),
    [("abcdefghij", 0), ("abcdefghij", 10_000), ("abcdefghi", 1), ("../../../x", 1), ("abcdefghi1", 1)],
)  # fmt: skip
def test_folder_that_would_lead_astray_is_never_made(serial: str, number: int) -> None:
    with pytest.raises(ValueError):
        volume_folder(serial, number)


@pytest.mark.parametrize(
    "name",
    [
        "", "cuntong", "cuntong-abcdefghij", "cuntong-abcdefghij-0", "cuntong-abcdefghij-01",
        "cuntong-abcdefghij-10000", "cuntong-abcdefghij-1\n", "CUNTONG-ABCDEFGHIJ-1", "cuntong-abcdefghij-１",
        "cuntong-abcdefghi-1", "cuntong-abcdefghi0-1", "x/cuntong-abcdefghij-1",
    ],
)  # fmt: skip
def test_other_folders_are_not_taken_for_volumes(name: str) -> None:
    assert parse_volume_folder(name) is None


def test_things_lie_where_the_specification_says() -> None:
    digits = INFOHASH.hex()
    assert str(torrent_file(INFOHASH)) == f"data/torrents/{digits}.torrent"
    assert str(catalogue_file(VILLAGE)) == f"data/catalogue/{VILLAGE}"
    assert str(store_file(INFOHASH, "poems", "files/杜甫/a.txt")) == (
        f"data/store/{digits}/poems/files/杜甫/a.txt"
    )
    assert str(part_file(INFOHASH, 3, 128)) == f"data/parts/{digits}/3/128"
    assert str(again(PurePosixPath("data/volume"))) == "data/again/volume"
    assert str(again(catalogue_file(VILLAGE))) == f"data/again/catalogue/{VILLAGE}"
    assert DISC_BYTES["dvd"] < 4_707_319_808  # The smaller one of DVD-R and DVD+R.


@given(st.integers(0, 9_999_999_999), st.integers(0, 9_999_999_999))
def test_part_tells_file_and_piece(file: int, piece: int) -> None:
    path = part_file(INFOHASH, file, piece)
    assert parse_part(*path.parts[-2:]) == (file, piece)


@pytest.mark.parametrize(
    "word", ["", "-1", "+1", "01", " 1", "1\n", "１", "1.0", "1e3", "0x1", "99999999999", "..", "²"]
)
def test_name_that_is_no_number_is_no_part(word: str) -> None:
    assert parse_part(word, "0") is None
    assert parse_part("0", word) is None


@pytest.mark.parametrize("char", '"*:<>?|%')
def test_name_that_windows_or_bags_refuse_is_not_portable(char: str) -> None:
    assert not is_portable(f"folder/a{char}b/file")
    assert is_portable("folder/a'b&c;d[e]$f (1) ~!@#^+=,/文件")


@pytest.mark.parametrize(
    ("component", "expected"),
    [
        ("村" * MAX_COMPONENT_UNITS, True),
        ("村" * (MAX_COMPONENT_UNITS + 1), False),
        # Outside the basic plane a character is two units, and four bytes.
        ("😀" * 127, True),
        ("😀" * 128, False),
    ],
)
def test_length_of_a_name_is_counted_as_fat_does(component: str, expected: bool) -> None:
    assert is_portable(f"a/{component}/b") is expected


# --- Volumes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_volume_comes_back_as_it_was(kind: KeyType) -> None:
    key = new_key(kind)
    volume, signed = decode_volume(encode_volume(VOLUME, key, CHAIN))
    check_volume(signed, key.public_key())
    assert volume == VOLUME
    assert signed.chain == CHAIN


def test_fullest_volume_that_may_be_is_read() -> None:
    bundle = msgspec.structs.replace(VOLUME.bundles[0], id="440000000000/202611/" + "x" * 64)
    full = msgspec.structs.replace(
        VOLUME, places=(VILLAGE,) * MAX_PLACES, bundles=(bundle,) * MAX_VOLUME_BUNDLES
    )
    data = encode_volume(full, KEY, CHAIN)
    assert len(data) < MAX_VOLUME_PAPER_BYTES
    assert decode_volume(data)[0] == full


@pytest.mark.parametrize(
    "changes",
    [
        {"bundles": VOLUME.bundles[:1] * (MAX_VOLUME_BUNDLES + 1)},
        {"places": (VILLAGE,) * (MAX_PLACES + 1)},
    ],
)
def test_volume_beyond_its_limits_is_refused(changes: dict[str, Any]) -> None:
    data = encode_volume(msgspec.structs.replace(VOLUME, **changes), KEY, CHAIN)
    assert code_of(decode_volume, data) == "media.bad-volume"


def test_endless_volume_is_refused_before_it_is_read() -> None:
    for data in (
        bytes(MAX_VOLUME_PAPER_BYTES + 65_537),
        make.volume(bytes(MAX_VOLUME_PAPER_BYTES)),
    ):
        assert code_of(decode_volume, data) == "media.bad-volume"


def test_volume_cut_off_anywhere_is_refused() -> None:
    assert {code_of(decode_volume, PAPER[:end]) for end in range(len(PAPER))} == {
        "media.bad-volume"
    }


def test_volume_is_not_taken_as_something_else_that_the_key_signed() -> None:
    _volume, signed = decode_volume(PAPER)
    for context in (b"", b"cuntong receipt 1\0", b"cuntong enrolment pack 1\0"):
        other = msgspec.structs.replace(signed, signature=sign(KEY, context + signed.body))
        assert code_of(check_volume, other, KEY.public_key()) == "media.forged-volume"
    assert code_of(check_volume, signed, OTHER_KEY.public_key()) == "media.forged-volume"


@settings(max_examples=300)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_volume_with_one_wrong_byte_is_refused_or_the_same(place: int, change: int) -> None:
    """Invariant: nothing but a MediaError, and what passes says what was signed."""
    data = bytearray(PAPER)
    data[place % len(data)] ^= change
    try:
        volume, signed = decode_volume(bytes(data))
        check_volume(signed, KEY.public_key())
    except MediaError:
        return
    assert volume == VOLUME


@given(st.binary(max_size=300))
def test_any_bytes_as_a_volume_end_in_words(data: bytes) -> None:
    for found in (data, make.volume(data)):
        assert code_of(decode_volume, found).startswith("media.")


# --- Receipts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_receipt_survives_mail_and_qr_codes(kind: KeyType) -> None:
    signed = sign_receipt(RECEIPT, new_key(kind), CHAIN)
    text = receipt_text(signed)
    assert max(map(len, text.splitlines())) <= 76
    assert is_receipt(text.encode())
    assert decode_receipt(text) == (RECEIPT, signed)
    assert decode_receipt(text.replace("\n", "\r\n").lower()) == (RECEIPT, signed)
    code = receipt_qr_text(signed)
    assert code is not None
    assert set(code) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567:")
    assert is_receipt(code.lower().encode())
    assert decode_receipt(f"  {code}\n") == (RECEIPT, msgspec.structs.replace(signed, chain=()))


def test_other_papers_are_not_taken_for_receipts() -> None:
    for data in (b"", b"CUNTONG:REQUEST:AAAA", b"CUNTONG:RECEIPT", b"x" * 2000 + TEXT.encode()):
        assert not is_receipt(data)
    assert is_receipt(b" \r\n\t" + TEXT.encode())


def test_what_is_held_is_named_shortly_and_in_order() -> None:
    hashes = {bytes([number]) * 32 for number in range(200)}
    held = shortened(hashes)
    assert len(held) == SHORT * 200
    assert held == b"".join(sorted(infohash[:SHORT] for infohash in hashes))
    found = msgspec.structs.replace(RECEIPT, held=held)
    assert found.holdings == {infohash[:SHORT] for infohash in hashes}
    # Of bytes that don't come out even, the rest names nothing.
    assert msgspec.structs.replace(RECEIPT, held=held[:-3]).holdings < found.holdings
    assert msgspec.structs.replace(RECEIPT, held=b"1234567").holdings == frozenset()


def test_receipt_of_the_largest_place_is_read() -> None:
    largest = msgspec.structs.replace(
        RECEIPT,
        held=bytes(SHORT * 100_000),
        orders=(f"441900000000/202611/{'x' * 64}",) * MAX_ORDERS,
        sets={f"aaaaaaaa{number // 6 + 2}{number % 6 + 2}": (1,) for number in range(MAX_SETS)},
        catalogues={f"{number:012d}": 2**60 for number in range(5000)},
    )
    assert decode_receipt(receipt_text(sign_receipt(largest, KEY, CHAIN)))[0] == largest


@pytest.mark.parametrize(
    "changes",
    [
        {"held": bytes(MAX_RECEIPT_BYTES)},
        {"orders": ("441900000000/202611/x",) * (MAX_ORDERS + 1)},
        {"sets": {"abcdefgh27": (1,) * (MAX_SET_VOLUMES + 1)}},
        {"catalogues": {f"{number:012d}": 1 for number in range(5001)}},
        {"statistics": Statistics(problems=("x",) * 51)},
        {"statistics": Statistics(problems=("\x1b[2J",))},
        {"orders": ("441900000000/202611/\u202ex",)},
        {"subscriptions": Subscriptions(categories=["x"] * 257)},
    ],
)
def test_receipt_beyond_its_limits_is_refused(changes: dict[str, Any]) -> None:
    said = sign_receipt(msgspec.structs.replace(RECEIPT, **changes), KEY, CHAIN)
    assert code_of(decode_receipt, receipt_text(said)) == "media.bad-receipt"


def test_endless_receipt_is_refused() -> None:
    for data in (bytes(MAX_RECEIPT_BYTES + 65_537), bytes(8 * MAX_RECEIPT_BYTES)):
        assert code_of(decode_receipt, make.as_text(data).decode()) == "media.bad-receipt"
    assert code_of(decode_receipt, " " * (16 * MAX_RECEIPT_BYTES)) == "media.bad-receipt"


def test_receipt_cut_off_anywhere_is_refused() -> None:
    code = receipt_qr_text(SIGNED)
    assert code is not None
    assert {code_of(decode_receipt, code[:end]) for end in range(len(code))} == {
        "media.bad-receipt"
    }


def test_receipt_is_not_taken_as_something_else_that_the_key_signed() -> None:
    for context in (b"", b"cuntong volume 1\0", b"cuntong enrolment request 1\0"):
        other = msgspec.structs.replace(SIGNED, signature=sign(KEY, context + SIGNED.body))
        assert code_of(decode_receipt, receipt_text(other)) == "media.forged-receipt"


def test_receipt_changed_on_its_way_is_refused() -> None:
    for other in (
        msgspec.structs.replace(SIGNED, body=SIGNED.body.replace(b"lectures", b"fecturel")),
        msgspec.structs.replace(SIGNED, public_key=public_key_der(OTHER_KEY.public_key())),
        msgspec.structs.replace(SIGNED, signature=bytes(64)),
    ):
        assert other != SIGNED
        assert code_of(decode_receipt, receipt_text(other)) == "media.forged-receipt"


@given(st.integers(0, 4000), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567:"))
def test_receipt_with_one_wrong_character_is_refused_or_the_same(place: int, char: str) -> None:
    text = "".join(TEXT.split())
    place %= len(text)
    try:
        found, _signed = decode_receipt(text[:place] + char + text[place + 1 :])
    except MediaError:
        return
    assert found == RECEIPT


@given(st.text(max_size=300))
def test_any_text_as_a_receipt_ends_in_words(text: str) -> None:
    for found in (text, "CUNTONG:RECEIPT:" + text):
        assert code_of(decode_receipt, found).startswith("media.")


@given(st.binary(max_size=300))
def test_any_signed_bytes_as_a_receipt_end_in_words(data: bytes) -> None:
    for found in (make.as_text(data), make.receipt(data)):
        assert code_of(decode_receipt, found.decode()).startswith("media.")


def _held(count: int, **changes: Any) -> Receipt:
    changes.setdefault("orders", ())
    changes.setdefault("catalogues", {})
    return msgspec.structs.replace(RECEIPT, held=bytes(SHORT * count), **changes)


@pytest.mark.parametrize(
    ("kind", "changes", "at_least"),
    [
        ("ed25519", {}, 250),
        ("p256", {}, 245),
        # A village that ordered ten bundles and has got sixteen sets.
        (
            "ed25519",
            {
                "orders": tuple(f"440000000000/202611/ordered-{number}" for number in range(10)),
                "sets": {
                    f"aaaaaaaa{number // 6 + 2}{number % 6 + 2}": (1, 2, 3, 4, 5)
                    for number in range(MAX_SETS)
                },
            },
            150,
        ),
    ],
)
def test_one_code_holds_what_a_village_has(
    kind: KeyType, changes: dict[str, Any], at_least: int
) -> None:
    text = receipt_qr_text(sign_receipt(_held(at_least, **changes), new_key(kind), ()))
    assert text is not None
    assert len(text) <= MAX_QR_CHARS
    code = segno.make(text, error="l", micro=False)
    assert code.mode == "alphanumeric"


def test_longest_code_is_the_longest_that_there_is() -> None:
    assert segno.make("A" * MAX_QR_CHARS, error="l", micro=False).version == 40
    with pytest.raises(segno.encoder.DataOverflowError):
        segno.make("A" * (MAX_QR_CHARS + 1), error="l", micro=False)


def test_receipt_too_long_for_a_code_has_none() -> None:
    signed = sign_receipt(_held(2000), KEY, ())
    assert receipt_qr_text(signed) is None
    assert decode_receipt(receipt_text(signed))[0].holdings
    # A chain alone doesn't make it too long: it is left out.
    assert receipt_qr_text(sign_receipt(_held(10), KEY, (bytes(4000),) * 3)) is not None


def test_fields_of_the_bodies_are_those_of_the_specification() -> None:
    """SPEC 12.3, 12.6 and 12.7 list them."""
    assert [field.name for field in msgspec.structs.fields(Volume)] == [
        "v", "serial", "number", "count", "made_at", "by", "network", "places", "bundles",
    ]  # fmt: skip
    assert [field.name for field in msgspec.structs.fields(Receipt)] == [
        "v", "code", "number", "made_at", "proven_time", "network", "is_all", "held", "orders",
        "catalogues", "sets", "subscriptions", "free", "used", "statistics",
    ]  # fmt: skip
