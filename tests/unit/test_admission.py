"""Requests for swarm certificates on their way up, and answers on their way down (SPEC 7.6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from cuntong_daemon.admission import ASK_AGAIN_S, MAX_WAITING, REFUSED_AGAIN_S, Admissions
from cuntong_daemon.clock import NodeClock
from cuntong_daemon.files import write_atomically
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.pki.certificates import (
    KeyFiles,
    PrivateKey,
    certificate_der,
    new_key,
    private_key_pem,
)
from cuntong_daemon.pki.swarm import SWARM_CA, SwarmCa, make_swarm_ca
from cuntong_daemon.pki.tls import PeerIdentity
from cuntong_daemon.services import running
from cuntong_daemon.trust.view import View
from cuntong_protocol.divisions import Division
from cuntong_protocol.enrolment import public_key_der, spki_sha256
from cuntong_protocol.link.messages import SwarmCertificate, SwarmRequest, check_message
from cuntong_protocol.link.states import Role
from cuntong_protocol.texts import sentence
from cuntong_protocol.trust.members import Member

NATION, PROVINCE = Division("000000000000"), Division("440000000000")
COUNTY, VILLAGE = Division("441900000000"), Division("441900003005")
STRANGER = Division("445200000000")
NOW = datetime.now(UTC)

Message = SwarmRequest | SwarmCertificate


class Peer:
    """A link whose messages arrive at another place's `Admissions`, or are only kept."""

    def __init__(self, code: Division, role: Role, key: PrivateKey | None = None) -> None:
        self.peer_code = code
        self.peer_role = role
        spki = spki_sha256((key or new_key()).public_key())
        self.identity = PeerIdentity(code, (NATION,), spki, NOW, NOW, (b"",))
        self.sent: list[Message] = []
        self.receiver: Callable[[Message], None] = self.sent.append

    def pass_on(self, message: Message) -> None:
        check_message(message)
        self.receiver(message)


@dataclass
class Around:
    """The neighbours of one place."""

    parent: Any = None
    children: dict[Division, Any] = field(default_factory=dict)

    def towards(self, place: Division) -> Any:
        near = [code for code in self.children if place.is_within(code)]
        return self.children[max(near, key=lambda code: code.tier)] if near else None


class Place:
    """One node's admissions with a key of its own."""

    def __init__(self, folder: Path, code: Division) -> None:
        self.code = code
        self.paths = DataPaths(folder / code)
        self.paths.keys.mkdir(parents=True)
        self.key = new_key()
        write_atomically(KeyFiles(self.paths.keys).key, private_key_pem(self.key), mode=0o600)
        self.around = Around()
        self.changed: list[Division] = []
        self._event = trio.Event()
        self.admissions = Admissions(
            self.paths,
            code,
            clock=NodeClock(),
            neighbours=self.around,  # type: ignore[arg-type]
            on_change=self._changed,
        )

    def _changed(self, publisher: Division) -> None:
        self.changed.append(publisher)
        self._event.set()
        self._event = trio.Event()

    async def wait_changed(self, count: int = 1) -> None:
        with trio.fail_after(30):
            while len(self.changed) < count:
                await self._event.wait()

    def found_ca(self) -> SwarmCa:
        ca = make_swarm_ca(self.code, "ed25519", now=NOW)
        path = self.paths.authority / SWARM_CA
        path.parent.mkdir(parents=True)
        path.write_bytes(ca.encode())
        return ca

    def request(self, publisher: Division = NATION) -> SwarmRequest:
        return SwarmRequest(publisher, self.code, public_key_der(self.key.public_key()))


def join(parent: Place, child: Place) -> None:
    """Link two places; what one says the other hears at once."""
    up, down = Peer(parent.code, Role.PARENT), Peer(child.code, Role.CHILD, child.key)
    up.receiver = lambda message: parent.admissions.handle(down, message)  # type: ignore[arg-type]
    down.receiver = lambda message: child.admissions.handle(up, message)  # type: ignore[arg-type]
    child.around.parent, parent.around.children[child.code] = up, down


@pytest.fixture
def places(tmp_path: Path) -> list[Place]:
    return [Place(tmp_path, code) for code in (NATION, PROVINCE, COUNTY, VILLAGE)]


async def test_request_goes_up_three_links_and_the_certificate_comes_down(
    places: list[Place],
) -> None:
    nation, province, county, village = places
    ca = nation.found_ca()
    for parent, child in ((nation, province), (province, county), (county, village)):
        join(parent, child)
    async with running(nation.admissions), running(village.admissions):
        assert await village.admissions.credential(NATION, ca.pem) is None
        assert village.admissions.problem(NATION).code == "admission.waiting"
        await village.wait_changed()
        found = await village.admissions.credential(NATION, ca.pem)
        assert found is not None
        assert found.key == private_key_pem(village.key).decode()
        assert "PRIVATE" not in repr(found)
    assert not province.changed
    assert not county.changed


async def test_publisher_certifies_itself(tmp_path: Path) -> None:
    nation = Place(tmp_path, NATION)
    ca = nation.found_ca()
    async with running(nation.admissions):
        assert await nation.admissions.credential(NATION, ca.pem) is None
        await nation.wait_changed()
        assert await nation.admissions.credential(NATION, ca.pem) is not None


async def test_request_waits_where_the_link_up_is_down(places: list[Place]) -> None:
    nation, province, county, village = places
    ca = nation.found_ca()
    join(province, county)
    join(county, village)
    async with running(nation.admissions), running(village.admissions):
        await village.admissions.credential(NATION, ca.pem)
        with trio.fail_after(30):
            while not province.admissions._held:  # noqa: ASYNC110  There is no event for it.
                await trio.sleep(0.01)
        join(nation, province)
        province.admissions.on_parent()
        await village.wait_changed()
        assert await village.admissions.credential(NATION, ca.pem) is not None


def ask(place: Place, child: Peer, request: SwarmRequest) -> str | None:
    """What a child's request is answered at once; None when it is handed on."""
    place.admissions.handle(child, request)  # type: ignore[arg-type]
    if not child.sent:
        return None
    answer = child.sent.pop()
    assert isinstance(answer, SwarmCertificate)
    assert answer.refusal is not None
    assert (answer.publisher, answer.asker) == (request.publisher, request.asker)
    assert not answer.certificate
    return answer.refusal.code


async def test_what_a_child_may_not_ask_is_refused_with_a_reason(places: list[Place]) -> None:
    _nation, _province, county, village = places
    county.around.parent = up = Peer(PROVINCE, Role.PARENT)
    honest = Peer(VILLAGE, Role.CHILD, village.key)
    assert ask(county, honest, village.request()) is None
    assert up.sent == [village.request()]
    # For a place that isn't below the child; for a publisher that isn't above us.
    other = SwarmRequest(NATION, Division("441900003006"), village.request().public_key)
    assert ask(county, honest, other) == "admission.wrong-subtree"
    assert ask(county, honest, village.request(STRANGER)) == "admission.wrong-subtree"
    assert ask(county, honest, village.request(VILLAGE)) == "admission.wrong-subtree"
    # For another key than the one it has shown, and for what is no key.
    thief = Peer(VILLAGE, Role.CHILD)
    assert ask(county, thief, village.request()) == "admission.other-key"
    assert ask(county, honest, SwarmRequest(NATION, VILLAGE, b"rubbish")) == "node.bad-key"
    assert up.sent == [village.request()]


@pytest.mark.parametrize("authority", [NATION, COUNTY])
async def test_removed_node_gets_no_certificate(places: list[Place], authority: Division) -> None:
    nation, _province, _county, village = places
    nation.found_ca()
    spki = spki_sha256(village.key.public_key())
    line = Member(VILLAGE, spki, "removed", date(2027, 3, 1), date(2027, 3, 1), "inspection")
    nation.admissions.set_view(View(members={authority: {VILLAGE: line}}))
    province = Peer(PROVINCE, Role.CHILD)
    assert ask(nation, province, village.request()) == "node.removed"
    # Enrolled again it has another key, and the old line names the old one.
    village.key = new_key()
    assert ask(nation, province, village.request()) is None


async def test_publisher_without_a_ca_says_so(places: list[Place]) -> None:
    nation, province, *_ = places
    join(nation, province)
    async with running(nation.admissions), running(province.admissions):
        await province.admissions.credential(NATION, make_swarm_ca(NATION, "p256", now=NOW).pem)
        await province.wait_changed()
        assert province.admissions.problem(NATION).code == "admission.not-issued"


async def test_certificate_that_opens_nothing_is_not_kept(places: list[Place]) -> None:
    nation, province, *_ = places
    nation.found_ca()
    other = make_swarm_ca(NATION, "ed25519", now=NOW)
    join(nation, province)
    async with running(nation.admissions), running(province.admissions):
        assert await province.admissions.credential(NATION, other.pem) is None
        await province.wait_changed()
        assert await province.admissions.credential(NATION, other.pem) is None
        assert province.admissions.problem(NATION).code == "swarm-ca.wrong-issuer"
    assert not (province.paths.keys / "swarm").exists()


async def test_answers_that_nobody_asked_for_change_nothing(places: list[Place]) -> None:
    _nation, _province, county, village = places
    ca = make_swarm_ca(NATION, "ed25519", now=NOW)
    der = certificate_der(ca.issue(COUNTY, county.key.public_key(), now=NOW))
    up, down = Peer(PROVINCE, Role.PARENT), Peer(VILLAGE, Role.CHILD, village.key)
    county.around.children[VILLAGE] = down
    async with running(county.admissions):
        county.admissions.handle(up, SwarmCertificate(NATION, COUNTY, der))  # type: ignore[arg-type]
        # An answer for nobody below, and one from a child.
        county.admissions.handle(up, SwarmCertificate(NATION, STRANGER, der))  # type: ignore[arg-type]
        county.admissions.handle(down, SwarmCertificate(NATION, COUNTY, der))  # type: ignore[arg-type]
        county.admissions.handle(up, county.request())  # type: ignore[arg-type]
        await trio.testing.wait_all_tasks_blocked()
        assert not county.changed
        assert not down.sent
    assert not (county.paths.keys / "swarm").exists()


async def test_flood_of_requests_stays_bounded(places: list[Place]) -> None:
    nation, province, *_ = places
    nation.found_ca()
    child = Peer(PROVINCE, Role.CHILD)
    codes = [Division(f"44{number:010}") for number in range(1, MAX_WAITING + 100)]
    key = province.request().public_key
    for code in codes:
        nation.admissions.handle(child, SwarmRequest(NATION, code, key))  # type: ignore[arg-type]
    assert nation.admissions._send.statistics().current_buffer_used == MAX_WAITING
    for code in codes:
        province.admissions.handle(
            Peer(PROVINCE, Role.CHILD),  # type: ignore[arg-type]
            SwarmRequest(NATION, code, key),
        )
    assert len(province.admissions._held) == MAX_WAITING


async def test_asker_is_patient(places: list[Place], mock_clock: trio.testing.MockClock) -> None:
    _nation, province, *_ = places
    ca = make_swarm_ca(NATION, "ed25519", now=NOW)
    admissions = province.admissions
    look = lambda: admissions._ask_if_due(NATION)  # noqa: E731
    province.around.parent = up = Peer(NATION, Role.PARENT)
    assert await admissions.credential(NATION, ca.pem) is None
    for _ in range(5):  # However often somebody wants to know.
        await look()
    assert len(up.sent) == 1
    mock_clock.jump(ASK_AGAIN_S)
    await look()
    assert len(up.sent) == 2
    refusal = sentence("node.removed", "removed")
    await admissions._take(SwarmCertificate(NATION, PROVINCE, refusal=refusal))
    assert province.changed == [NATION]
    assert admissions.problem(NATION) == refusal
    mock_clock.jump(REFUSED_AGAIN_S - 1)
    await look()
    assert len(up.sent) == 2
    mock_clock.jump(1)
    await look()
    assert len(up.sent) == 3
    admissions.on_parent()  # A new parent may think otherwise.
    await look()
    assert len(up.sent) == 4


async def test_certificate_is_renewed_a_month_before_its_end(places: list[Place]) -> None:
    nation, province, *_ = places
    ca = nation.found_ca()
    old = ca.issue(PROVINCE, province.key.public_key(), now=NOW - timedelta(days=61))
    folder = province.paths.keys / "swarm"
    folder.mkdir()
    (folder / f"{NATION}.der").write_bytes(certificate_der(old))
    join(nation, province)
    async with running(nation.admissions), running(province.admissions):
        assert await province.admissions.credential(NATION, ca.pem) is not None
        province.admissions.on_parent()
        await province.wait_changed()
    assert (folder / f"{NATION}.der").read_bytes() != certificate_der(old)
