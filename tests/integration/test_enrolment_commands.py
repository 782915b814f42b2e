"""A place becomes a node through the real commands, and what happens when something is wrong with it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from rich.cells import cell_len

from cuntong_daemon.authority.endorsement import encode_response, endorse, install, propose
from cuntong_daemon.authority.endorsement import read_response as read_response_file
from cuntong_daemon.authority.keys import KeyRing
from cuntong_daemon.authority.repository import AuthorityRepository
from cuntong_daemon.authority.setup import KeyPlan, create_authority
from cuntong_daemon.config import load_config
from cuntong_daemon.control.lock import hold_data_directory
from cuntong_daemon.paths import DataPaths
from cuntong_daemon.pki.certificates import KeyFiles, load_chain, own_certificate
from cuntong_daemon.pki.issued import IssuedCertificates, install_renewal
from cuntong_daemon.pki.tls import (
    PeerIdentity,
    client_context,
    judge,
    judge_parent,
    peer_identity,
    server_context,
)
from cuntong_daemon.trust.federation import Federation
from cuntong_daemon.trust.spool import Spool
from cuntong_daemon.trust.view import View
from cuntong_protocol.divisions import NATION, Division
from cuntong_protocol.enrolment import EnrolmentError, encode_pack, open_pack
from cuntong_tools.main import run
from cuntong_tools.node import at_centre
from cuntong_tools.node import enrol as enrol_module

PASSPHRASE = "correct horse"
GUANGDONG = Division("440000000000")
DONGGUAN = Division("441900000000")
VILLAGE = Division("441900003005")
NAMES = {NATION: "国家中心", GUANGDONG: "广东省", DONGGUAN: "东莞市文化馆"}


@dataclass(frozen=True)
class Passphrases:
    """Answers every question alike."""

    passphrase: str
    attempts: int = 1

    def ask(self, prompt: str) -> str:
        return self.passphrase


@dataclass
class Network:
    """Data directories and sticks below one folder."""

    root: Path
    capsys: pytest.CaptureFixture[str]

    def data(self, code: Division) -> Path:
        return self.root / "data" / code

    def paths(self, code: Division) -> DataPaths:
        return DataPaths(self.data(code))

    def stick(self, code: Division) -> Path:
        return self.root / "sticks" / code

    def run(self, *arguments: str | Path, passphrase: str = PASSPHRASE) -> tuple[int, str, str]:
        """Run `cuntong node …`; every line must fit 80 columns."""
        reading, writing = os.pipe()
        os.write(writing, f"{passphrase}\n{passphrase}\n".encode())
        os.close(writing)
        try:
            given = [str(argument) for argument in arguments]
            if "--keys" in given:
                given += ["--passphrase-fd", str(reading), "--yes"]
            code = run(["node", *given])
        finally:
            os.close(reading)
        out, err = self.capsys.readouterr()
        # A file's path can't be broken; everything else must be.
        assert all(cell_len(line) <= 80 for line in out.splitlines() if "/" not in line)
        return code, out, err

    def ask(self, code: Division, *more: str) -> Path:
        """Make a request; the file."""
        result = self.run(
            "request", code, "--site", f"{NAMES.get(code, '水乡村文化室')}", "--contact", "陈 0769-1",
            "--data", self.data(code), "--output", self.root, *more,
        )  # fmt: skip
        assert result[0] == 0, result
        return self.root / f"{code}.request"

    def accept(self, authority: Division, request: Path, *more: str) -> tuple[int, str, str]:
        return self.run(
            "accept", request, "--keys", self.stick(authority), "--output", self.root,
            "--data", self.data(authority), *more,
        )  # fmt: skip

    def enrol(self, code: Division, pack: Path, *more: str) -> tuple[int, str, str]:
        return self.run("enrol", pack, "--data", self.data(code), *more)

    def join(self, code: Division, authority: Division, *addresses: str) -> None:
        """The whole way, and it must go well."""
        more = [word for address in addresses for word in ("--address", address)]
        result = self.accept(authority, self.ask(code), *more)
        assert result[0] == 0, result
        result = self.enrol(code, self.root / f"{code}.pack")
        assert result[0] == 0, result

    def refresh(self, code: Division) -> View:
        """What a node believes of what it has."""
        with closing(
            Federation(
                self.paths(code), code=code, profile="strict", clock=lambda: datetime.now(UTC)
            )
        ) as federation:
            return federation.refresh().view

    def state(self, code: Division) -> dict[str, bytes]:
        """Every file of a data directory, to see that nothing has changed."""
        folder = self.data(code)
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and path.name not in {"lock", ".lock"}
        }


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nation, Guangdong and Dongguan as authorities."""
    root = tmp_path_factory.mktemp("founded")
    now = datetime.now(UTC) - timedelta(hours=1)
    above: AuthorityRepository | None = None
    ring: KeyRing | None = None
    for code, name in NAMES.items():
        stick, data = root / "sticks" / code, root / "data" / code
        stick.mkdir(parents=True)
        data.mkdir(parents=True)
        repository = AuthorityRepository(data / "authority")
        plan = KeyPlan(1, 1, 1, (stick,))
        asked = create_authority(repository, code, name, plan, lambda _stick: PASSPHRASE, now=now)
        if above is not None and ring is not None:
            parent = above.load()
            keys = parent.settings.keys
            proposal = propose(parent, asked, until=None, is_new_epoch=False, now=now)
            response = endorse(
                above,
                proposal,
                [ring.signer(keys["targets"], "targets")],
                ring.private_key(keys["ca"], "ca"),
                now=now,
            )
            file = root / "response"
            file.write_bytes(encode_response(response))
            install(repository, read_response_file(file), now=now)
        above, ring = repository, KeyRing([stick], Passphrases(PASSPHRASE))
    return root


@pytest.fixture
def network(founded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Network:
    shutil.copytree(founded, tmp_path / "network")
    return Network(tmp_path / "network", capsys)


def stage(network: Network, founded: Path, name: str, build: Callable[[], None]) -> Network:
    """Build a state once for all tests of this file, then copy it: opening keys takes its time."""
    kept = founded.parent / f"{founded.name}-{name}"
    if kept.exists():
        shutil.copytree(kept, network.root, dirs_exist_ok=True)
    else:
        build()
        shutil.copytree(network.root, kept)
    return network


@pytest.fixture
def county(network: Network, founded: Path) -> Network:
    """With Dongguan's own node enrolled; its parents are known then."""
    parents = ("440000000000=10.44.0.1:7440", "000000000000=10.0.0.1:7440")
    return stage(network, founded, "county", lambda: network.join(DONGGUAN, DONGGUAN, *parents))


@pytest.fixture
def packed(county: Network, founded: Path) -> Network:
    """A village that has asked, and its pack."""

    def build() -> None:
        result = county.accept(DONGGUAN, county.ask(VILLAGE), "--address", "10.44.19.1:7440")
        assert result[0] == 0, result

    return stage(county, founded, "packed", build)


async def greet(parent: Path, child: Path, code: Division) -> tuple[PeerIdentity, PeerIdentity]:
    """A real handshake: who the parent sees, and whom the child sees."""
    found: dict[str, PeerIdentity] = {}
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]

    async def side(name: str, stream: trio.SSLStream[trio.SocketStream]) -> None:
        await stream.do_handshake()
        found[name] = peer_identity(stream)
        await stream.send_all(b"x")
        await stream.receive_some(1)
        await trio.aclose_forcefully(stream)

    async def serve() -> None:
        context = server_context(parent)
        await side("parent", trio.SSLStream(await listener.accept(), context, server_side=True))

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        stream = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        context = client_context(child)
        await side("child", trio.SSLStream(stream, context, server_hostname=code.dns_name))
    return found["parent"], found["child"]


# --- It works -------------------------------------------------------------------------------------


async def test_nation_province_county_and_village_join_and_know_each_other(
    network: Network,
) -> None:
    network.join(NATION, NATION)
    network.join(GUANGDONG, GUANGDONG, "10.0.0.1:7440")
    network.join(DONGGUAN, DONGGUAN, "440000000000=10.44.0.1:7440")
    network.join(VILLAGE, DONGGUAN, "10.44.19.1:7440")

    config = load_config(network.paths(VILLAGE).config)
    assert config.division == VILLAGE
    assert config.node.name == "水乡村文化室"
    assert [(parent.code, parent.address) for parent in config.network.parents] == [
        (DONGGUAN, "10.44.19.1:7440"),
        (GUANGDONG, "10.44.0.1:7440"),
    ]
    keys = network.paths(VILLAGE).keys
    assert keys.stat().st_mode & 0o777 == 0o700
    assert KeyFiles(keys).key.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in keys.iterdir()) == ["anchor.pem", "node.key", "node.pem"]

    # The pack brought all that is needed to verify the whole chain of authorities, without any link.
    view = network.refresh(VILLAGE)
    assert set(view.authorities) == {NATION, GUANGDONG, DONGGUAN}
    assert {state.state for state in view.authorities.values()} == {"fresh"}

    server, client = network.paths(DONGGUAN).keys, network.paths(VILLAGE).keys
    child, parent = await greet(server, client, DONGGUAN)
    now = datetime.now(UTC)
    judge(child, network.refresh(DONGGUAN).members, now, DONGGUAN)
    judge_parent(parent, view.members, now, DONGGUAN)


async def test_village_falls_back_to_its_grandparent(county: Network) -> None:
    county.join(GUANGDONG, GUANGDONG, "10.0.0.1:7440")
    county.join(VILLAGE, DONGGUAN, "10.44.19.1:7440")
    server, client = county.paths(GUANGDONG).keys, county.paths(VILLAGE).keys
    child, _parent = await greet(server, client, GUANGDONG)
    assert child.issuers == (DONGGUAN, GUANGDONG, NATION)
    # The province learns the county's list by the ordinary way, as a verified catalogue.
    source, target = county.paths(DONGGUAN).authority, county.paths(GUANGDONG)
    spool = Spool(target)
    for path in (source / "metadata").iterdir():
        spool.store_metadata(DONGGUAN, path.name, path.read_bytes())
    for path in (source / "targets").iterdir():
        spool.store_blob(path.name, path.read_bytes())
    judge(child, county.refresh(GUANGDONG).members, datetime.now(UTC), GUANGDONG)


def test_node_that_only_receives_is_configured_without_parents(county: Network) -> None:
    asked = county.ask(VILLAGE, "--link", "satellite only")
    assert county.accept(DONGGUAN, asked, "--receive-only", "--name", "山村")[0] == 0
    code, out, _err = county.enrol(VILLAGE, county.root / f"{VILLAGE}.pack")
    assert code == 0
    assert "only receives" in out
    config = load_config(county.paths(VILLAGE).config)
    assert config.network.parents == []
    assert config.node.profile == "tolerant"
    assert config.node.name == "山村"
    assert DONGGUAN in county.refresh(VILLAGE).authorities


def test_request_is_shown_as_a_qr_code_and_saved_as_a_picture(network: Network) -> None:
    picture = network.root / "request.png"
    network.ask(VILLAGE, "--qr", "--qr-file", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
    _code, out, _err = network.run(
        "request", VILLAGE, "--site", "村", "--qr", "--data", network.data(VILLAGE),
        "--output", network.root,
    )  # fmt: skip
    assert "▀" in out or "█" in out


def test_request_too_dense_for_the_window_says_what_to_do(network: Network) -> None:
    long = "村" * 120
    _code, out, _err = network.run(
        "request", VILLAGE, "--site", long, "--contact", long, "--equipment", long, "--link", long,
        "--qr", "--data", network.data(VILLAGE), "--output", network.root,
    )  # fmt: skip
    assert "--qr-file" in out


def test_asking_twice_before_the_pack_comes_keeps_the_key(county: Network) -> None:
    first = county.ask(VILLAGE)
    assert county.accept(DONGGUAN, first, "--address", "10.44.19.1:7440")[0] == 0
    county.ask(VILLAGE)
    assert county.enrol(VILLAGE, county.root / f"{VILLAGE}.pack")[0] == 0


def test_list_shows_who_was_taken_in(county: Network) -> None:
    county.join(VILLAGE, DONGGUAN, "10.44.19.1:7440")
    code, out, _err = county.run("list", "--data", county.data(DONGGUAN))
    assert code == 0
    assert VILLAGE in out
    assert "水乡村文化室" in out
    _code, out, _err = county.run("list", "--json", "--data", county.data(DONGGUAN))
    rows = {row["code"]: row for row in json.loads(out)}
    assert rows[VILLAGE]["state"] == "active"
    assert rows[VILLAGE]["contact"] == "陈 0769-1"


def test_list_of_nobody_says_how_to_go_on(network: Network) -> None:
    code, out, _err = network.run("list", "--data", network.data(DONGGUAN))
    assert code == 0
    assert "node accept" in out


# --- Refused at the node --------------------------------------------------------------------------


def refused(network: Network, result: tuple[int, str, str], code: str) -> None:
    exit_code, _out, err = result
    assert exit_code != 0
    assert f"({code})" in err
    assert "{" not in err


def pack_file(network: Network, code: Division = VILLAGE) -> Path:
    return network.root / f"{code}.pack"


def test_pack_on_a_computer_that_has_not_asked(packed: Network) -> None:
    shutil.rmtree(packed.data(VILLAGE))
    refused(packed, packed.enrol(VILLAGE, pack_file(packed)), "pack.no-request")
    assert not packed.data(VILLAGE).exists()


def test_pack_made_for_another_key(packed: Network) -> None:
    shutil.rmtree(packed.data(VILLAGE))
    packed.ask(VILLAGE)
    before = packed.state(VILLAGE)
    refused(packed, packed.enrol(VILLAGE, pack_file(packed)), "pack.other-key")
    assert packed.state(VILLAGE) == before


def test_pack_made_for_another_node(packed: Network) -> None:
    neighbour = Division("441900003006")
    packed.ask(neighbour)
    result = packed.run("enrol", pack_file(packed), "--data", packed.data(neighbour))
    refused(packed, result, "pack.other-node")
    assert str(VILLAGE) in result[2]


@pytest.mark.parametrize(
    ("tamper", "code"),
    [
        (lambda data: data[: len(data) // 2], "pack.damaged"),
        (lambda data: b"", "pack.damaged"),
        (lambda data: b"CUNTONG:REQUEST:AAAA", "pack.damaged"),
        (lambda data: b"CUNTONG:REFUSAL:AAAA", "request.damaged"),
    ],
)
def test_damaged_pack(packed: Network, tamper: Callable[[bytes], bytes], code: str) -> None:
    file = pack_file(packed)
    file.write_bytes(tamper(file.read_bytes()))
    before = packed.state(VILLAGE)
    refused(packed, packed.enrol(VILLAGE, file), code)
    assert packed.state(VILLAGE) == before


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"parents": ()}, "pack.bad-signature"),
        ({"proven_time": 1}, "pack.bad-signature"),
        ({"nation_root": b"{}"}, "pack.bad-signature"),
        ({"code": "441900003006"}, "pack.inconsistent"),
        ({"tier": "county"}, "pack.inconsistent"),
        ({"anchor": "county"}, "ca.broken-chain"),
        ({"chain": "short"}, "ca.broken-chain"),
    ],
)
def test_pack_changed_by_somebody_without_the_ca_key(
    packed: Network, changes: dict[str, object], code: str
) -> None:
    from cuntong_daemon.pki.certificates import new_key

    file = pack_file(packed)
    pack, _signed = open_pack(file.read_bytes())
    if changes.get("anchor"):
        changes = {"anchor": pack.chain[1]}
    if changes.get("chain"):
        changes = {"chain": pack.chain[:1]}
    import msgspec

    file.write_bytes(encode_pack(msgspec.structs.replace(pack, **changes), new_key()))
    before = packed.state(VILLAGE)
    refused(packed, packed.enrol(VILLAGE, file), code)
    assert packed.state(VILLAGE) == before


def test_pack_of_another_network_with_its_fingerprint_compared(packed: Network) -> None:
    before = packed.state(VILLAGE)
    result = packed.enrol(VILLAGE, pack_file(packed), "--nation", "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE")
    refused(packed, result, "pack.wrong-fingerprint")
    assert packed.state(VILLAGE) == before


def test_right_fingerprint_is_taken_however_it_is_typed(packed: Network) -> None:
    _code, out, _err = packed.accept(
        DONGGUAN, packed.root / f"{VILLAGE}.request", "--address", "10.44.19.1:7440"
    )
    words = out.split("fingerprint is ")[1].split(":")[0]
    typed = words.replace("-", " ").replace("\n", "").lower()
    assert packed.enrol(VILLAGE, pack_file(packed), "--nation", typed)[0] == 0


def test_enrolled_node_is_not_enrolled_over_without_being_asked_to(packed: Network) -> None:
    assert packed.enrol(VILLAGE, pack_file(packed))[0] == 0
    packed.paths(VILLAGE).config.write_text(
        packed.paths(VILLAGE).config.read_text(encoding="utf-8") + "# mine\n", encoding="utf-8"
    )
    before = packed.state(VILLAGE)
    refused(packed, packed.enrol(VILLAGE, pack_file(packed)), "node.already-enrolled")
    assert packed.state(VILLAGE) == before
    assert packed.enrol(VILLAGE, pack_file(packed), "--replace")[0] == 0
    kept = packed.data(VILLAGE) / "config.toml.old"
    assert kept.read_text(encoding="utf-8").endswith("# mine\n")


def test_node_is_enrolled_again_with_a_new_key(packed: Network) -> None:
    assert packed.enrol(VILLAGE, pack_file(packed))[0] == 0
    old = own_certificate(KeyFiles(packed.paths(VILLAGE).keys))
    asked = packed.ask(VILLAGE)
    code, out, _err = packed.accept(DONGGUAN, asked, "--address", "10.44.19.1:7440")
    assert code == 0
    assert "ANOTHER KEY" in out
    refused(packed, packed.enrol(VILLAGE, pack_file(packed)), "node.already-enrolled")
    assert packed.enrol(VILLAGE, pack_file(packed), "--replace")[0] == 0
    new = own_certificate(KeyFiles(packed.paths(VILLAGE).keys))
    assert new.public_key() != old.public_key()
    client_context(packed.paths(VILLAGE).keys)


def test_node_is_not_moved_into_another_network(packed: Network, tmp_path: Path) -> None:
    assert packed.enrol(VILLAGE, pack_file(packed))[0] == 0
    anchor = KeyFiles(packed.paths(VILLAGE).keys).anchor
    anchor.write_bytes((packed.paths(DONGGUAN).authority / "ca.pem").read_bytes())
    result = packed.enrol(VILLAGE, pack_file(packed), "--replace")
    refused(packed, result, "node.other-network")


def test_node_is_not_enrolled_while_its_daemon_runs(packed: Network) -> None:
    with hold_data_directory(packed.paths(VILLAGE)):
        refused(packed, packed.enrol(VILLAGE, pack_file(packed)), "control.second-daemon")


def test_listen_address_outside_the_networks(packed: Network) -> None:
    before = packed.state(VILLAGE)
    result = packed.enrol(VILLAGE, pack_file(packed), "--swarm", "8.8.8.8:7441")
    refused(packed, result, "config.outside-networks")
    assert packed.state(VILLAGE) == before


def test_power_fails_at_any_write_of_an_enrolment(
    packed: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is cut short, running it again ends in a working node."""
    real_write, real_config = enrol_module.write_atomically, enrol_module.write_config
    left = 0

    def count() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(5, "power failed")

    def write(path: Path, data: bytes, **how: int) -> None:
        count()
        real_write(path, data, **how)  # type: ignore[arg-type]

    def config(path: Path, text: str) -> None:
        count()
        real_config(path, text)

    monkeypatch.setattr(enrol_module, "write_atomically", write)
    monkeypatch.setattr(enrol_module, "write_config", config)
    for writes in range(3):
        left = writes
        assert packed.enrol(VILLAGE, pack_file(packed))[0] == 74
        assert not packed.paths(VILLAGE).config.exists()
    left = 99
    assert packed.enrol(VILLAGE, pack_file(packed))[0] == 0
    client_context(packed.paths(VILLAGE).keys)


def test_refusal_tells_the_node_why(county: Network) -> None:
    asked = county.ask(VILLAGE)
    code, _out, _err = county.run(
        "reject", asked, "--reason", "没有稳定的电源", "--data", county.data(DONGGUAN),
        "--output", county.root,
    )  # fmt: skip
    assert code == 0
    exit_code, _out, err = county.enrol(VILLAGE, county.root / f"{VILLAGE}.refusal")
    assert exit_code == 77
    assert "没有稳定的电源" in err
    assert "(node.refused)" in err


# --- Refused at the centre ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ((), "pack.no-parent"),
        (("--address", "county.example"), "pack.bad-address"),
        (("--address", "10.1.2.3"), "pack.bad-address"),
        (("--address", "445200000000=10.1.2.3:7440"), "pack.bad-address"),
        (("--address", "441900003005=10.1.2.3:7440"), "pack.bad-address"),
        (("--address", "x=10.1.2.3:7440"), "pack.bad-address"),
        (("--address", "8.8.8.8:7440"), "config.outside-networks"),
        (("--address", "10.1.2.3:7440", "--network", "everywhere"), "config.bad-value"),
    ],
)
def test_node_that_could_not_be_configured_is_not_accepted(
    network: Network, more: tuple[str, ...], code: str
) -> None:
    asked = network.ask(VILLAGE)
    before = network.state(DONGGUAN)
    refused(network, network.accept(DONGGUAN, asked, *more), code)
    assert network.state(DONGGUAN) == before


def test_request_of_another_county_is_not_accepted(network: Network) -> None:
    asked = network.ask(Division("445202001002"))
    before = network.state(DONGGUAN)
    result = network.accept(DONGGUAN, asked, "--address", "10.1.2.3:7440")
    refused(network, result, "ca.wrong-subtree")
    assert network.state(DONGGUAN) == before


def test_wrong_passphrase_and_wrong_stick_change_nothing(network: Network) -> None:
    asked = network.ask(VILLAGE)
    before = network.state(DONGGUAN)
    where = ("--address", "10.1.2.3:7440", "--output", str(network.root))
    result = network.run(
        "accept", asked, "--keys", network.stick(DONGGUAN), "--data", network.data(DONGGUAN),
        *where, passphrase="wrong",
    )  # fmt: skip
    refused(network, result, "keys.wrong-passphrase")
    result = network.run(
        "accept", asked, "--keys", network.stick(GUANGDONG), "--data", network.data(DONGGUAN),
        *where,
    )  # fmt: skip
    refused(network, result, "keys.not-on-stick")
    assert network.state(DONGGUAN) == before
    assert not pack_file(network).exists()


def test_data_directory_without_an_authority(network: Network) -> None:
    asked = network.ask(VILLAGE)
    result = network.run("reject", asked, "--reason", "x", "--data", network.data(VILLAGE))
    refused(network, result, "authority.none")


def test_clock_before_the_nation_s_last_signature(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = network.ask(VILLAGE)
    before = network.state(DONGGUAN)
    with time_travel(monkeypatch, timedelta(days=-9_000)):
        result = network.accept(DONGGUAN, asked, "--address", "10.1.2.3:7440")
    refused(network, result, "pack.clock-behind")
    assert network.state(DONGGUAN) == before


# --- Renewal and removal --------------------------------------------------------------------------


@contextmanager
def time_travel(monkeypatch: pytest.MonkeyPatch, step: timedelta) -> Iterator[None]:
    """Run the commands at another time."""
    with monkeypatch.context() as patch:
        patch.setattr(at_centre, "now_utc", lambda: datetime.now(UTC) + step)
        yield


def renew(network: Network, *more: str | Path) -> tuple[int, str, str]:
    return network.run(
        "renew", *more, "--keys", network.stick(DONGGUAN), "--data", network.data(DONGGUAN)
    )


def test_due_certificates_are_renewed_and_delivered(
    packed: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert packed.enrol(VILLAGE, pack_file(packed))[0] == 0
    keys = packed.paths(VILLAGE).keys
    old = own_certificate(KeyFiles(keys))
    code, out, _err = renew(packed, "--due")
    assert code == 0
    assert "90 days" in out
    with time_travel(monkeypatch, timedelta(days=380)):
        _code, out, _err = packed.run("list", "--data", packed.data(DONGGUAN))
        assert out.count("renew soon") == 2
        code, out, err = renew(packed, "--due", "--output", packed.root)
        assert code == 0, err
        assert str(VILLAGE) in out
        _code, out, _err = packed.run("list", "--data", packed.data(DONGGUAN))
        assert "renew soon" not in out

    # The centre's own node has its new certificate already; a connected village gets it over the link.
    own = own_certificate(KeyFiles(packed.paths(DONGGUAN).keys))
    assert own.not_valid_after_utc > old.not_valid_after_utc
    issued = IssuedCertificates(packed.paths(DONGGUAN).authority)
    from cuntong_daemon.pki.certificates import certificate_spki

    pem = issued.newer_chain(VILLAGE, certificate_spki(old), old.not_valid_after_utc)
    assert pem is not None
    before = KeyFiles(keys).chain.read_bytes()
    assert install_renewal(keys, pem)

    # One without a link gets it as a pack, which changes nothing but the certificate.
    KeyFiles(keys).chain.write_bytes(before)
    config = packed.paths(VILLAGE).config.read_bytes()
    code, out, _err = packed.enrol(VILLAGE, pack_file(packed))
    assert code == 0
    assert "renewed" in out
    assert packed.paths(VILLAGE).config.read_bytes() == config
    assert KeyFiles(keys).chain.read_bytes() == pem
    assert load_chain(pem)[0].public_key() == old.public_key()


@pytest.mark.parametrize(
    ("codes", "code"),
    [((), "node.renew-what"), (("441900003009",), "node.not-a-member")],
)
def test_renewing_nobody_or_a_stranger(packed: Network, codes: tuple[str, ...], code: str) -> None:
    before = packed.state(DONGGUAN)
    refused(packed, renew(packed, *codes), code)
    assert packed.state(DONGGUAN) == before


def remove(network: Network, code: str, reason: str = "失窃") -> tuple[int, str, str]:
    return network.run(
        "remove", code, "--reason", reason, "--keys", network.stick(DONGGUAN),
        "--data", network.data(DONGGUAN),
    )  # fmt: skip


async def test_removed_node_is_refused_with_the_reason_until_it_is_accepted_again(
    packed: Network,
) -> None:
    assert packed.enrol(VILLAGE, pack_file(packed))[0] == 0
    assert remove(packed, VILLAGE)[0] == 0
    child, _parent = await greet(packed.paths(DONGGUAN).keys, packed.paths(VILLAGE).keys, DONGGUAN)
    with pytest.raises(EnrolmentError) as caught:
        judge(child, packed.refresh(DONGGUAN).members, datetime.now(UTC), DONGGUAN)
    assert caught.value.code == "node.removed"
    assert "失窃" in str(caught.value)
    _code, out, _err = packed.run("list", "--data", packed.data(DONGGUAN))
    assert "失窃" in out

    refused(packed, remove(packed, VILLAGE), "node.removed")
    refused(packed, renew(packed, VILLAGE), "node.removed")
    assert renew(packed, "--due")[0] == 0

    asked = packed.ask(VILLAGE)
    code, out, _err = packed.accept(DONGGUAN, asked, "--address", "10.44.19.1:7440")
    assert code == 0
    assert "removed on" in out
    assert packed.enrol(VILLAGE, pack_file(packed), "--replace")[0] == 0
    child, _parent = await greet(packed.paths(DONGGUAN).keys, packed.paths(VILLAGE).keys, DONGGUAN)
    judge(child, packed.refresh(DONGGUAN).members, datetime.now(UTC), DONGGUAN)


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        ("441900003009", "x", "node.not-a-member"),
        (str(VILLAGE), "   ", "node.bad-reason"),
        (str(VILLAGE), "x" * 301, "node.bad-reason"),
    ],
)
def test_removal_that_makes_no_sense(
    packed: Network, code: str, reason: str, expected: str
) -> None:
    before = packed.state(DONGGUAN)
    refused(packed, remove(packed, code, reason), expected)
    assert packed.state(DONGGUAN) == before
