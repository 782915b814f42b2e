"""The catalogue: listings, search in Chinese, orders, states, events."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuntong_daemon.catalogue import Catalogue, CatalogueError, open_database
from cuntong_daemon.catalogue import catalogue as module
from cuntong_daemon.catalogue.words import Folder
from cuntong_protocol.divisions import NATION, Division
from cuntong_protocol.errors import CuntongError
from cuntong_protocol.texts import sentence
from tests.support.node import NOW, Published, fill, published

OPERA = published("春节戏曲晚会选段", "spring-opera", terms={"creator": ("廣東粵劇院",)})
FILM = published(
    "臺灣風光紀錄片", "taiwan-film", category="film/documentary", terms={"subject": ("Landscape",)}
)
BOOK = published("乾隆皇帝的一生", "qianlong", terms={"description": ("A life of the emperor.",)})
TIBETAN = published("བོད་ཀྱི་སྒྲུང་།", "tibetan-tales", languages=("bo",))
UYGHUR = published("ئۇيغۇر خەلق چۆچەكلىرى", "uyghur-tales", languages=("ug",))
ALL = [OPERA, FILM, BOOK, TIBETAN, UYGHUR]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    opened = open_database(tmp_path / "state.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def catalogue(connection: sqlite3.Connection) -> Catalogue:
    filled = Catalogue(connection)
    fill(filled, ALL)
    return filled


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("戏", [OPERA]),  # One character inside a longer title.
        ("晚会", [OPERA]),
        ("春节戏曲晚会", [OPERA]),
        ("戲曲", [OPERA]),  # Traditional finds simplified,
        ("粤剧", [OPERA]),  # and simplified finds traditional.
        ("台湾", [FILM]),
        ("纪录片", [FILM]),
        ("乾", [BOOK]),  # Part of a word that phrase tables would leave alone.
        ("乾隆", [BOOK]),
        ("干隆", [BOOK]),
        ("戏 晚会", [OPERA]),
        ("戏曲，晚会！", [OPERA]),
        ("曲戏", []),  # The order of characters matters.
        ("戏 乾隆", []),  # All words are demanded.
        ("land", [FILM]),
        ("LANDSCAPE", [FILM]),
        ("ｌａｎｄ", [FILM]),
        ("scape", []),  # Latin words are found by their beginning only.
        ("emp life", [BOOK]),
        ("spring-op", [OPERA]),
        ("docu", [FILM]),
        ("སྒྲུང", [TIBETAN]),
        ("خەلق", [UYGHUR]),
        ("", []),
        ('"*()^:-+ AND', []),
    ],
)
def test_search_finds(catalogue: Catalogue, query: str, expected: list[Published]) -> None:
    found = [summary.id for summary in catalogue.search(query)]
    assert found == [bundle.listing.id for bundle in expected]


def test_a_word_in_the_title_comes_before_one_in_the_terms(catalogue: Catalogue) -> None:
    about = published("讲座", "talk", terms={"subject": ("粤剧",)})
    title = published("粤剧", "yueju")
    fill(catalogue, [about, title])
    assert [found.id for found in catalogue.search("粤剧")] == [title.listing.id, about.listing.id]


@given(text=st.text(max_size=60))
def test_nothing_typed_is_a_syntax_error_and_a_title_finds_itself(text: str) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE VIRTUAL TABLE words USING fts5(title, tokenize = 'ascii')")
    with Folder() as folder:
        connection.execute("INSERT INTO words VALUES (?)", (folder.indexed(text),))
        expression = folder.expression(text)
    if expression:
        rows = connection.execute("SELECT 1 FROM words WHERE words MATCH ?", (expression,))
        assert rows.fetchall() == [(1,)]
    connection.close()


@given(text=st.text(alphabet="戏曲電影乾隆abc 12，", min_size=1, max_size=30), data=st.data())
def test_every_piece_of_a_chinese_title_finds_it(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    piece = text[start]
    if piece in " ，abc12":
        return
    with Folder() as folder:
        assert folder.expression(piece).strip('"') in folder.indexed(text).split()


def test_listings_follow_the_view(catalogue: Catalogue) -> None:
    newer = published("春节戏曲晚会全集", "spring-opera")
    unseen = published("新书", "new-book")
    unreadable = replace(OPERA.listing, id="000000000000/202703/evil", sha256="ee" * 32)
    blobs = {newer.listing.sha256: newer.data, unreadable.sha256: b"\xff"}
    changes = catalogue.replace_listings(
        [newer.listing, BOOK.listing, unseen.listing, unreadable], blobs.get
    )
    assert changes.added == ()
    assert changes.changed == (OPERA.listing.id,)
    assert set(changes.removed) == {b.listing.id for b in (FILM, TIBETAN, UYGHUR)}
    assert changes.skipped == (unseen.listing.id, unreadable.id)
    assert catalogue.count() == 2
    assert catalogue.search("台湾") == []
    assert [found.title for found in catalogue.search("全集")] == ["春节戏曲晚会全集"]
    entry = catalogue.bundle(OPERA.listing.id)
    assert entry is not None
    assert entry.sha256 == newer.listing.sha256
    assert entry.descriptor.metadata.title == "春节戏曲晚会全集"


def test_a_promotion_changes_who_lists_and_reads_no_descriptor(catalogue: Catalogue) -> None:
    promoted = replace(OPERA.listing, listed_by=(Division("440000000000"), NATION))
    changes = catalogue.replace_listings([promoted], lambda _sha256: pytest.fail("read"))
    assert changes.changed == ()
    assert catalogue.demand(promoted.id).listed_by == promoted.listed_by


def test_a_failed_replacement_leaves_the_catalogue_as_it_was(catalogue: Catalogue) -> None:
    def fail(_sha256: str) -> bytes:
        raise OSError

    with pytest.raises(OSError):
        catalogue.replace_listings([published("x", "x").listing], fail)
    assert catalogue.count() == len(ALL)
    assert [found.id for found in catalogue.search("戏")] == [OPERA.listing.id]


def test_pages_give_every_bundle_once(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    ids = sorted(bundle.listing.id for bundle in ALL)
    assert [entry.id for entry in catalogue.bundles()] == ids
    first = catalogue.summaries(limit=3)
    rest = catalogue.summaries(after=first[-1].id, limit=3)
    assert [summary.id for summary in first + rest] == ids
    assert catalogue.summaries(prefix="44") == []
    assert [s.id for s in catalogue.summaries(prefix="000000000000/202703/s")] == [OPERA.listing.id]
    # What people type is not a pattern.
    assert catalogue.summaries(prefix="%") == []


def test_only_listed_bundles_can_be_ordered(catalogue: Catalogue) -> None:
    assert catalogue.add_order(BOOK.listing.id, NOW)
    assert not catalogue.add_order(BOOK.listing.id, NOW)
    assert catalogue.orders() == {BOOK.listing.id}
    assert catalogue.search("乾隆")[0].is_ordered
    with pytest.raises(CatalogueError) as caught:
        catalogue.add_order("000000000000/202703/none", NOW)
    assert caught.value.code == "catalogue.unknown-bundle"
    assert catalogue.remove_order(BOOK.listing.id)
    assert not catalogue.remove_order(BOOK.listing.id)
    assert catalogue.orders() == frozenset()


def test_orders_have_a_limit(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ORDERS", 1)
    catalogue.add_order(BOOK.listing.id, NOW)
    with pytest.raises(CatalogueError) as caught:
        catalogue.add_order(FILM.listing.id, NOW)
    assert caught.value.code == "catalogue.too-many-orders"


def test_a_state_remembers_since_when(catalogue: Catalogue) -> None:
    later = NOW + dt.timedelta(hours=1)
    reason = sentence("selection.ordered", "It was ordered here.")
    for state, at in (("downloading", NOW), ("downloading", later), ("complete", later)):
        catalogue.set_state(
            BOOK.listing.id, revision=1, infohash=b"i" * 32, state=state, at=at, reason=reason
        )
        kept = catalogue.state(BOOK.listing.id)
        assert kept is not None
        expected = NOW if state == "downloading" else later
        assert (kept.changed_at, kept.reason) == (int(expected.timestamp()), reason)
    catalogue.touch(BOOK.listing.id, later)
    assert [state.used_at for state in catalogue.states()] == [int(later.timestamp())]
    assert catalogue.summaries(prefix=BOOK.listing.id)[0].state == "complete"
    catalogue.remove_state(BOOK.listing.id)
    assert catalogue.state(BOOK.listing.id) is None


def test_old_events_make_room(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_EVENTS", 5)
    monkeypatch.setattr(module, "EVENT_SLACK", 2)
    for number in range(20):
        catalogue.record_event("test", sentence("test.event", "Event {number}", number=number), NOW)
    texts = [str(event.sentence) for event in catalogue.events(100)]
    assert texts == [f"Event {number}" for number in (19, 18, 17, 16, 15)]
    assert catalogue.events(kind="other") == []


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    first = open_database(tmp_path / "state.sqlite")
    before = Catalogue(first)
    fill(before, ALL)
    before.add_order(BOOK.listing.id, NOW)
    first.close()
    second = open_database(tmp_path / "state.sqlite")
    after = Catalogue(second)
    assert after.count() == len(ALL)
    assert after.orders() == {BOOK.listing.id}
    second.close()


def test_a_newer_database_is_refused(connection: sqlite3.Connection) -> None:
    Catalogue(connection)
    with connection:
        connection.execute("UPDATE catalogue_version SET version = 99")
    with pytest.raises(CatalogueError) as caught:
        Catalogue(connection)
    assert caught.value.code == "catalogue.newer"


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"not a database" * 100, "catalogue.damaged"), (None, "catalogue.no-database")],
)
def test_a_database_that_cannot_be_used_says_so(
    tmp_path: Path, content: bytes | None, code: str
) -> None:
    path = tmp_path / "state.sqlite"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(CuntongError) as caught:
        open_database(path)
    assert caught.value.code == code
