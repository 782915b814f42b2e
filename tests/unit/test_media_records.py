"""What is remembered of media: other places' stores, sets, offers, counters (SPEC 12.6)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cuntong_daemon.media import records as records_module
from cuntong_daemon.media.records import MediaRecords
from cuntong_protocol.media.papers import MAX_SETS, Receipt, Statistics, Volume, shortened

VILLAGE = "441900003005"
OTHER = "441900003006"
NETWORK = bytes(32)
A, B, C = (bytes([number]) * 32 for number in (1, 2, 3))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "state.sqlite")
    yield connection
    connection.close()


@pytest.fixture
def records(database: sqlite3.Connection) -> MediaRecords:
    return MediaRecords(database)


def receipt(
    number: int, *held: bytes, at: int = 1_000, is_all: bool = True, **more: Any
) -> Receipt:
    return Receipt(
        code=more.pop("code", VILLAGE),
        number=number,
        made_at=at,
        proven_time=at,
        network=NETWORK,
        is_all=is_all,
        held=shortened(set(held)),
        **more,
    )


def take(records: MediaRecords, taken: Receipt) -> bool:
    return records.take_receipt(taken, msgspec.msgpack.encode(taken))


def held(records: MediaRecords, code: str = VILLAGE) -> set[bytes]:
    place = records.place(code)
    return set() if place is None else set(place.held)


def short(*infohashes: bytes) -> set[bytes]:
    return {infohash[:8] for infohash in infohashes}


# --- Receipts -------------------------------------------------------------------------------------


def test_unknown_place_is_unknown(records: MediaRecords) -> None:
    assert records.place(VILLAGE) is None
    assert records.places(10) == []
    assert records.orders() == set()


def test_receipt_is_taken_with_all_that_it_says(records: MediaRecords) -> None:
    said = receipt(
        7, A, B, orders=("000000000000/202611/a",), free=5, used=6, statistics=Statistics(sent=9)
    )
    assert take(records, said)
    place = records.place(VILLAGE)
    assert place is not None
    assert (place.code, place.how, place.at, place.number) == (VILLAGE, "receipt", 1_000, 7)
    assert place.is_all
    assert place.receipt == said
    assert held(records) == short(A, B)
    assert records.orders() == {"000000000000/202611/a"}


def test_older_receipt_and_the_same_once_more_change_nothing(records: MediaRecords) -> None:
    assert take(records, receipt(7, A))
    assert not take(records, receipt(7, B))
    assert not take(records, receipt(6, B))
    assert held(records) == short(A)
    assert take(records, receipt(8, B))
    assert held(records) == short(B)


def test_receipts_of_two_places_have_nothing_to_do_with_each_other(records: MediaRecords) -> None:
    assert take(records, receipt(7, A))
    assert take(records, receipt(1, B, code=OTHER))
    assert held(records) == short(A)
    assert held(records, OTHER) == short(B)


def test_receipt_that_names_only_some_adds_to_what_is_known(records: MediaRecords) -> None:
    assert take(records, receipt(1, A))
    assert take(records, receipt(2, B, is_all=False))
    assert held(records) == short(A, B)


def test_file_of_a_receipt_completes_its_qr_code(records: MediaRecords) -> None:
    assert take(records, receipt(3, B, is_all=False))
    place = records.place(VILLAGE)
    assert place is not None
    assert not place.is_all
    assert take(records, receipt(3, A, B))
    place = records.place(VILLAGE)
    assert place is not None
    assert place.is_all
    assert held(records) == short(A, B)
    assert not take(records, receipt(3, B, is_all=False))


def test_file_of_a_receipt_corrects_what_its_qr_code_could_not_say(records: MediaRecords) -> None:
    assert take(records, receipt(1, A, B))
    assert take(
        records, receipt(2, C, is_all=False)
    )  # A has gone, and there was no room to say so.
    assert take(records, receipt(2, B, C))
    assert held(records) == short(B, C)


def test_what_the_link_said_later_outweighs_a_receipt_that_was_long_in_the_post(
    records: MediaRecords,
) -> None:
    records.heard(VILLAGE, [A, B, C], 5_000)
    assert take(records, receipt(1, A, at=1_000, orders=("000000000000/202611/a",)))
    assert held(records) == short(A, B, C)
    place = records.place(VILLAGE)
    assert place is not None
    assert (place.how, place.at, place.number) == ("link", 5_000, 1)
    # What only receipts say counts all the same.
    assert records.orders() == {"000000000000/202611/a"}
    assert not take(records, receipt(1, A, at=1_000))


def test_receipt_that_is_newer_than_the_links_word_counts(records: MediaRecords) -> None:
    records.heard(VILLAGE, [A, B], 5_000)
    assert take(records, receipt(1, C, at=6_000))
    assert held(records) == short(C)
    place = records.place(VILLAGE)
    assert place is not None
    assert place.how == "receipt"


def test_link_says_everything_and_keeps_the_receipts_number(records: MediaRecords) -> None:
    assert take(records, receipt(4, A))
    records.heard(VILLAGE, [B], 2_000)
    place = records.place(VILLAGE)
    assert place is not None
    assert (place.how, place.at, place.number, place.is_all) == ("link", 2_000, 4, True)
    assert held(records) == short(B)
    assert place.receipt is not None
    assert not take(records, receipt(4, A, at=3_000))
    assert take(records, receipt(5, A, at=3_000))


def test_largest_numbers_and_times_are_kept(records: MediaRecords) -> None:
    assert take(records, receipt(2**62, A, at=2**40, free=2**62, used=2**62))
    place = records.place(VILLAGE)
    assert place is not None
    assert (place.number, place.at) == (2**62, 2**40)


def test_places_heard_of_last_come_first_and_the_oldest_are_forgotten(
    records: MediaRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records_module, "MAX_PLACES", 3)
    for number in range(5):
        take(records, receipt(1, A, at=100 + number, code=f"44190000300{number}"))
    found = [str(place.code) for place in records.places(10)]
    assert found == ["441900003004", "441900003003", "441900003002"]
    assert [str(place.code) for place in records.places(1)] == ["441900003004"]


def test_holdings_that_are_no_whole_number_of_names_are_cut_off(records: MediaRecords) -> None:
    said = msgspec.structs.replace(receipt(1, A, B), held=A[:8] + B[:8] + b"xyz")
    assert take(records, said)
    assert held(records) == short(A, B)


# --- Volumes --------------------------------------------------------------------------------------


def volume(number: int, serial: str = "abcdefghij", count: int = 3) -> Volume:
    return Volume(
        serial=serial, number=number, count=count, made_at=5, by="441900000000", network=NETWORK
    )


def test_volumes_of_a_set_are_gathered_in_any_order(records: MediaRecords) -> None:
    records.imported(volume(3), 100, is_in_place=False)
    records.imported(volume(1), 200, is_in_place=True)
    records.imported(volume(3), 300, is_in_place=False)
    (known,) = records.sets()
    assert (known.serial, known.count, known.numbers) == ("abcdefghij", 3, (1, 3))
    assert records.was_in_place("abcdefghij", 1)
    assert not records.was_in_place("abcdefghij", 3)
    assert not records.was_in_place("abcdefghij", 2)
    assert not records.was_in_place("zzzzzzzzzz", 1)


def test_set_imported_last_comes_first_and_old_ones_are_forgotten(
    records: MediaRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records_module, "MAX_KNOWN_SETS", 20)
    for number in range(25):
        serial = f"abcdefgh{chr(97 + number // 5)}{chr(97 + number % 5)}"
        records.imported(volume(1, serial), 100 + number, is_in_place=False)
    assert len(records.sets()) == MAX_SETS
    assert records.sets()[0].serial == "abcdefghee"
    assert len(records.sets(100)) == 20


# --- Offers and counters --------------------------------------------------------------------------


def test_offers_are_noted_and_forgotten(records: MediaRecords) -> None:
    records.set_offer(A, "a")
    records.set_offer(B, "b")
    records.set_offer(A, "a")
    assert records.offers() == {A: "a", B: "b"}
    records.set_offer(A, None)
    records.set_offer(C, None)
    assert records.offers() == {B: "b"}


def test_counters_add_up_and_outlive_the_daemon(
    database: sqlite3.Connection, records: MediaRecords
) -> None:
    records.begin_counting(1_000)
    records.count({"sent": 5, "by_swarm": 0})
    records.count({"sent": 6})
    again = MediaRecords(database)
    again.begin_counting(2_000)
    assert again.counters() == {"since": 1_000, "sent": 11, "by_swarm": 0}


def test_numbers_of_receipts_grow(records: MediaRecords) -> None:
    numbers = [records.next_number() for _ in range(3)]
    assert numbers == sorted(set(numbers))
