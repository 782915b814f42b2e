"""Request, refusal and pack: what survives transport, and what is refused (SPEC 5.5, 5.6)."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from cuntong_daemon.pki.certificates import KeyType, new_key
from cuntong_protocol.divisions import Division
from cuntong_protocol.enrolment import (
    MAX_FIELD_CHARS,
    MAX_PACK_BYTES,
    MAX_PACK_FILE_BYTES,
    MAX_REQUEST_BYTES,
    EnrolmentError,
    Pack,
    Parent,
    Refusal,
    Request,
    SignedPack,
    checked_public_key,
    decode_refusal,
    decode_request,
    encode_pack,
    encode_refusal,
    encode_request,
    fingerprint,
    is_refusal,
    load_public_key,
    make_request,
    open_pack,
    public_key_der,
    sign,
    spki_sha256,
    verify_pack,
)
from cuntong_protocol.paper_text import qr_text

VILLAGE = Division("441900003005")
KEY = new_key()
PACK = Pack(
    code="441900003005",
    name="水乡村",
    chain=(b"leaf", b"county"),
    anchor=b"nation",
    nation_root=b"{}",
    objects={"metadata/000000000000/timestamp.json": b"{}", "blobs/" + "0" * 64: b"x"},
    proven_time=1_795_000_000,
    parents=(Parent("441900000000", "10.1.2.3:7440"),),
    tier="village",
    receives_only=False,
    vpn_shape="hub",
    networks=("10.0.0.0/8",),
)


def request(key: Any = KEY, **changes: Any) -> Request:
    fields = {
        "site": "水乡镇文化站",
        "contact": "陈 0769-1234567",
        "equipment": "PC, 2 TB",
        "link": "512 kbit/s",
        "made_at": 1_795_000_000,
    }
    return make_request(key, VILLAGE, **(fields | changes))


def code_of(call: Any, *args: Any) -> str:
    with pytest.raises(EnrolmentError) as caught:
        call(*args)
    assert "{" not in str(caught.value)
    return caught.value.code


# --- Request --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_request_survives_mail_and_qr_codes(kind: KeyType) -> None:
    asked = request(new_key(kind))
    text = encode_request(asked)
    assert max(map(len, text.splitlines())) <= 76
    assert decode_request(text) == asked
    assert decode_request(text.replace("\n", "\r\n").lower()) == asked
    assert decode_request("  " + qr_text(text)) == asked
    assert set(qr_text(text)) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567:")


def test_longest_request_in_chinese_fits_a_qr_code() -> None:
    longest = "村" * MAX_FIELD_CHARS
    asked = request(new_key("p256"), site=longest, contact=longest, equipment=longest, link=longest)
    text = encode_request(asked)
    assert len(msgspec.msgpack.encode(asked)) <= MAX_REQUEST_BYTES
    assert len(qr_text(text)) <= 4296
    assert decode_request(text) == asked


@pytest.mark.parametrize(
    "changes",
    [
        {"site": ""},
        {"site": "   "},
        {"site": "x" * (MAX_FIELD_CHARS + 1)},
        {"contact": "two\nlines"},
        {"link": "\x1b[2J"},
        {"equipment": "PC\x85disk"},
    ],
)
def test_request_with_a_bad_field_is_not_made(changes: dict[str, str]) -> None:
    assert code_of(lambda: request(**changes)) == "request.bad-field"


def test_request_changed_on_its_way_is_refused() -> None:
    asked = request()
    for changed in (
        msgspec.structs.replace(asked, code="441900003006"),
        msgspec.structs.replace(asked, site="elsewhere"),
        msgspec.structs.replace(asked, public_key=public_key_der(new_key().public_key())),
        msgspec.structs.replace(asked, signature=b""),
    ):
        assert code_of(decode_request, encode_request(changed)) == "request.bad-signature"


def test_request_is_not_taken_as_something_else_that_the_key_signed() -> None:
    asked = request()
    bare = msgspec.structs.replace(asked, signature=b"")
    signed = sign(KEY, msgspec.msgpack.encode(bare, order="sorted"))
    text = encode_request(msgspec.structs.replace(asked, signature=signed))
    assert code_of(decode_request, text) == "request.bad-signature"


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()).public_key(),
        rsa.generate_private_key(65537, 2048).public_key(),
    ],
)
def test_request_for_a_key_of_another_type_is_refused(key: Any) -> None:
    asked = msgspec.structs.replace(request(), public_key=public_key_der(key)[:200])
    assert code_of(decode_request, encode_request(asked)) == "node.bad-key"
    assert code_of(checked_public_key, key) == "node.bad-key"
    assert code_of(load_public_key, public_key_der(key)) == "node.bad-key"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "CUNTONG:REQUEST:",
        "CUNTONG:REQUEST:1",
        "CUNTONG:REQUEST:AAAA",
        "CUNTONG:REFUSAL:" + base64.b32encode(b"\x80").decode(),
        "x" * 100_000,
        "CUNTONG:REQUEST:" + "A" * 5_000,
        "请求",
    ],
)
def test_something_else_is_not_a_request(text: str) -> None:
    assert code_of(decode_request, text) == "request.damaged"


def test_request_of_a_newer_program_is_told_apart() -> None:
    raw = msgspec.msgpack.encode({"v": 2, "code": "x"})
    text = "CUNTONG:REQUEST:" + base64.b32encode(raw).decode().rstrip("=")
    assert code_of(decode_request, text) == "pack.newer"


@given(st.integers(0, 400), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567:"))
def test_request_with_one_wrong_character_is_refused_or_the_same(place: int, char: str) -> None:
    asked = request()
    text = qr_text(encode_request(asked))
    place %= len(text)
    try:
        found = decode_request(text[:place] + char + text[place + 1 :])
    except EnrolmentError:
        return
    assert found == asked


def test_refusal_comes_back_as_it_was() -> None:
    refusal = Refusal(
        code="441900003005", spki=b"\1" * 32, by="441900000000", at=1_795_000_000, reason="没有电"
    )
    text = encode_refusal(refusal)
    assert is_refusal(text.encode())
    assert decode_refusal(text) == refusal
    assert not is_refusal(encode_request(request()).encode())
    assert code_of(decode_refusal, encode_request(request())) == "request.damaged"


# --- Pack -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_pack_comes_back_as_it_was(kind: KeyType) -> None:
    issuer = new_key(kind)
    pack, signed = open_pack(encode_pack(PACK, issuer))
    assert pack == PACK
    verify_pack(signed, issuer.public_key())


def test_pack_signed_by_somebody_else_is_refused() -> None:
    _pack, signed = open_pack(encode_pack(PACK, new_key()))
    assert code_of(verify_pack, signed, KEY.public_key()) == "pack.bad-signature"


def test_pack_whose_parent_was_changed_is_refused() -> None:
    _pack, signed = open_pack(encode_pack(PACK, KEY))
    changed = signed.body.replace(b"10.1.2.3:7440", b"10.6.6.6:7440")
    assert changed != signed.body
    forged = SignedPack(body=changed, signature=signed.signature)
    pack, signed = open_pack(zstandard.compress(msgspec.msgpack.encode(forged)))
    assert pack.parents[0].address == "10.6.6.6:7440"
    assert code_of(verify_pack, signed, KEY.public_key()) == "pack.bad-signature"


def replaced(**changes: Any) -> bytes:
    return encode_pack(msgspec.structs.replace(PACK, **changes), KEY)


@pytest.mark.parametrize(
    "changes",
    [
        {"code": "4419"},
        {"code": "441900003005\n"},
        {"tier": "hamlet"},
        {"chain": ()},
        {"chain": (b"x",) * 20},
        {"anchor": b"x" * 5_000},
        {"parents": (Parent("445200000000", "10.1.2.3:7440"),)},
        {"parents": (Parent("441900003005", "10.1.2.3:7440"),)},
        {"parents": (Parent("441900000000", "no port"),)},
        {"parents": (Parent("441900000000", "10.1.2.3:7440"),) * 9},
        {"receives_only": True},
        {"networks": ()},
        {"networks": ("everywhere",)},
        {"objects": {"../../etc/passwd": b"x"}},
        {"objects": {"metadata/000000000000/../x": b"x"}},
        {"objects": {"torrents/" + "0" * 64: b"x"}},
        {"name": "\x1b[2J"},
        {"proven_time": -1},
        {"v": 0},
    ],
)
def test_signed_but_malformed_pack_is_refused(changes: dict[str, Any]) -> None:
    assert code_of(open_pack, replaced(**changes)) == "pack.damaged"


def test_pack_of_a_newer_program_is_told_apart() -> None:
    assert code_of(open_pack, replaced(v=2)) == "pack.newer"


def test_pack_without_parents_for_a_node_that_only_receives() -> None:
    pack, _signed = open_pack(replaced(parents=(), receives_only=True))
    assert pack.receives_only


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"\x28\xb5\x2f\xfd",
        zstandard.compress(b""),
        zstandard.compress(b"\xc1"),
        zstandard.compress(b"\x91" * 100_000),
        zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 100),
        zstandard.compress(b"\0" * (MAX_PACK_BYTES + 1)),
        b"\x28\xb5\x2f\xfd" + b"\0" * MAX_PACK_FILE_BYTES,
        encode_pack(PACK, KEY) + b"more",
        encode_pack(PACK, KEY)[:-5],
    ],
    ids=[
        "empty",
        "text",
        "only the magic",
        "nothing packed",
        "no msgpack",
        "deeply nested",
        "no content size",
        "bomb",
        "too large",
        "trailing bytes",
        "cut off",
    ],
)
def test_something_else_is_not_a_pack(data: bytes) -> None:
    assert code_of(open_pack, data) == "pack.damaged"


@settings(max_examples=300)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_pack_with_one_wrong_byte_is_refused_or_the_same(place: int, change: int) -> None:
    """Invariant: nothing but an EnrolmentError, and what passes is what was signed."""
    data = bytearray(encode_pack(PACK, KEY))
    data[place % len(data)] ^= change
    try:
        pack, signed = open_pack(bytes(data))
        verify_pack(signed, KEY.public_key())
    except EnrolmentError:
        return
    assert pack == PACK


@given(st.binary(max_size=300))
def test_any_bytes_as_a_pack_end_in_words(data: bytes) -> None:
    for found in (data, zstandard.compress(data)):
        with pytest.raises(EnrolmentError):
            open_pack(found)


@given(st.text(max_size=300))
def test_any_text_as_a_request_ends_in_words(text: str) -> None:
    for found in (text, "CUNTONG:REQUEST:" + text):
        with pytest.raises(EnrolmentError):
            decode_request(found)


def test_fingerprint_is_short_enough_to_be_read_aloud() -> None:
    text = fingerprint(spki_sha256(KEY.public_key()))
    assert [len(group) for group in text.split("-")] == [5] * 5
