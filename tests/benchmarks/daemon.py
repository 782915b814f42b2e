"""Whole daemons: what a village's costs while it is idle and while it downloads, and a county's with 1,000 children.

The nation, the village and the county are real processes with real keys, on loopback addresses. The village dials
its parent through a relay that counts. Its catalogue has 10,000 bundles in 24 months; 200 of them are meant for
villages and have a small payload, the licences of the others have ended, so nobody fetches these.

`python -m tests.benchmarks.daemon PART…` runs parts of it: `village`, `download`, `county`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import multiprocessing
import os
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import structlog
import trio

from cuntong_daemon.authority.endorsement import ca_chain
from cuntong_daemon.authority.keys import KeyRing
from cuntong_daemon.authority.publishing import custom_fields
from cuntong_daemon.authority.repository import AuthorityRepository, Draft
from cuntong_daemon.files import write_atomically
from cuntong_daemon.link.transport import ParentAddress, tls_dialler
from cuntong_daemon.pki.ca import issue_node_certificate
from cuntong_daemon.pki.certificates import (
    KeyFiles,
    certificate_spki,
    chain_pem,
    new_key,
    private_key_pem,
)
from cuntong_daemon.pki.tls import client_context, peer_identity
from cuntong_protocol.bundle.descriptor import (
    Descriptor,
    encode_descriptor,
    parse_bundle_id,
)
from cuntong_protocol.bundle.metadata import Metadata, parse_metadata
from cuntong_protocol.divisions import Division
from cuntong_protocol.link.connection import PING_AFTER_S
from cuntong_protocol.link.messages import HaveItem, HaveState
from cuntong_protocol.link.states import Role
from cuntong_protocol.trust.custom import Listed
from cuntong_protocol.trust.members import Member, MembersList
from cuntong_protocol.trust.names import TARGETS
from cuntong_tools.demo.network import CONTROL_PORT, PASSPHRASE, SWARM_PORT, Network, Place
from cuntong_tools.publish.build import build_bundle
from tests.support.bundles import poem
from tests.support.link_world import Rest, make_child

NATION = Division("000000000000")
COUNTY = Division("441827000000")
VILLAGE = Division("441900003005")

BUNDLES = 10_000
HELD = 200
MONTHS = 24
CHILDREN = 1_000
SETTLE_S = 20
IDLE_S = 60
LINK_KBIT_S = 512
DOWNLOAD_S = 45
DEADLINE_S = 600
MEMORY_GOAL_MIB = 80
SEGMENT_BYTES = 1_448
"""Payload of a full segment; each has 52 bytes of headers, and every other one an acknowledgement of 52."""
HEADER_BYTES = 52

_MIB = 1 << 20
_TICK = os.sysconf("SC_CLK_TCK")

Rows = list[tuple[str, str]]


def run() -> Rows:
    """Measure everything; takes about eight minutes."""
    return measure(("village", "download", "county"))


def measure(parts: Sequence[str]) -> Rows:
    """The named parts, in one network."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows: Rows = []
    try:
        with tempfile.TemporaryDirectory(dir=os.environ.get("CUNTONG_BENCH_DIR")) as folder:
            world = _World(Path(folder))
            try:
                if "village" in parts or "download" in parts:
                    rows += _village(world, is_measured="village" in parts)
                if "download" in parts:
                    rows += _download(world)
                world.network.stop(world.village)
                if "county" in parts:
                    rows += _county(world)
            finally:
                world.network.stop(*world.network.places)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return rows


# The network.


class _World:
    """A nation with its catalogue, a village and a county below it."""

    def __init__(self, folder: Path) -> None:
        self.network = Network(folder)
        self.nation = self.network.add(NATION, "国家中心", is_authority=True)
        self.county = self.network.add(COUNTY, "阳山县", self.nation, is_authority=True)
        self.village = self.network.add(VILLAGE, "梨川村", self.nation)
        for place in (self.nation, self.county):
            self.network.found(place)
        for place in (self.nation, self.county, self.village):
            self.network.enrol(place)
        # Published only now: what an enrolment pack brings needn't cross the link.
        self.held = publish(self.nation, _payloads(self.nation, HELD), _others(BUNDLES - HELD))
        self.network.start(self.nation)
        wait(lambda: len(self.network.status(self.nation).bundles) >= HELD)
        wait(lambda: _held(self.nation) >= HELD)


def publish(place: Place, real: Sequence[Descriptor], others: Iterator[Descriptor]) -> list[bytes]:
    """Sign all of them in one change; the infohashes of the first."""
    repository = AuthorityRepository(place.paths.authority)
    ring = KeyRing(place.sticks, _Passphrase())

    def change(draft: Draft) -> None:
        for descriptor in (*real, *others):
            data = encode_descriptor(descriptor)
            month = descriptor.id.split("/")[1]
            draft.add_month(month)
            listed = Listed(
                descriptor.id,
                hashlib.sha256(data).hexdigest(),
                len(data),
                descriptor.revision,
                descriptor.payload_size,
                descriptor.infohash.hex(),
            )
            draft.add_target(month, descriptor.id, data, custom_fields(listed))

    signers = ring.quorum(*repository.load().role_keys(TARGETS), TARGETS)
    repository.edit(change, signers, now=dt.datetime.now(dt.UTC))
    return [descriptor.infohash for descriptor in real]


class _Passphrase:
    attempts = 1

    def ask(self, prompt: str) -> str:
        return PASSPHRASE


def _month(number: int) -> str:
    return f"{2025 + number % MONTHS // 12}{number % 12 + 1:02}"


def _metadata(slug: str, number: int, audience: str) -> Metadata:
    words = poem(number)
    lines = "".join(words["paragraphs"])  # type: ignore[arg-type]  # A list of texts.
    text = (
        f'title = "{words["title"]}，{lines[:12]}"\nslug = "{slug}"\ndate = "2026-11-01"\ncategory = "book"\n'
        f'[terms]\ncreator = ["{words["author"]}"]\ndescription = ["{lines}"]\n{audience}'
    )
    return parse_metadata(text, file="metadata.toml", publisher=NATION)


def _payloads(place: Place, count: int, *, size: int = 20_000, first: int = 0) -> list[Descriptor]:
    """Build small bundles where the daemon takes them from."""
    made = []
    incoming = place.paths.incoming
    incoming.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.folder) as name:
        content = Path(name) / "content"
        content.mkdir()
        for number in range(first, first + count):
            (content / "book.bin").write_bytes(random.Random(number).randbytes(size))
            (content / "read me.txt").write_text(str(poem(number)))
            slug = f"held-{number:05}"
            built = build_bundle(
                content,
                _metadata(slug, number, '[audience]\ntiers = ["village"]\n'),
                bundle_id=parse_bundle_id(f"{NATION}/{_month(number)}/{slug}"),
                revision=1,
                output=Path(name),
                predecessor=None,
                threads=1,
                progress=None,
            )
            infohash = built.descriptor.infohash.hex()
            (incoming / infohash).mkdir()
            built.payload_dir.rename(incoming / infohash / slug)
            write_atomically(incoming / f"{infohash}.torrent", built.torrent.encode())
            made.append(built.descriptor)
    return made


def _others(count: int) -> Iterator[Descriptor]:
    """Listings like real ones, whose payload nobody wants."""
    for number in range(count):
        slug = f"other-{number:05}"
        chance = random.Random(number)
        size = chance.randrange(1_000_000, 4_000_000_000)
        yield Descriptor(
            id=f"{NATION}/{_month(number)}/{slug}",
            revision=1,
            metadata=_metadata(
                slug,
                10_000 + number,
                '[audience]\ntiers = ["city"]\n[licence]\nuntil = "2020-01-01"\n',
            ),
            infohash=chance.randbytes(32),
            piece_length=1 << 20,
            payload_size=size,
            content_size=size,
            file_count=chance.randrange(1, 500),
        )


# A village.


def _village(world: _World, *, is_measured: bool) -> Rows:
    network, village = world.network, world.village
    relay = _Relay(world.nation.address, village.address)
    _edit(village, f"{world.nation.address}:{CONTROL_PORT}", relay.address)
    began = time.monotonic()
    network.start(village)
    wait(lambda: _listed(village) >= BUNDLES)
    catalogue_s, catalogue_cpu_s = time.monotonic() - began, _cpu_s(village)
    catalogue = relay.count()
    wait(lambda: _held(village) >= HELD)
    held_s, held_cpu_s = time.monotonic() - began, _cpu_s(village)
    if not is_measured:
        return []
    payload = sum(
        path.stat().st_size for path in (world.nation.paths.authority / "targets").iterdir()
    ) + sum(
        path.stat().st_size
        for path in (world.nation.paths.authority / "metadata").glob("*.2?????.json")
    )
    time.sleep(SETTLE_S)
    before, cpu = relay.count(), _cpu_s(village)
    time.sleep(IDLE_S)
    idle_cpu, idle = (_cpu_s(village) - cpu) / IDLE_S, relay.count() - before
    first = _memory(village)
    one_s, one = _one_more(world, relay)
    network.stop(village)
    began = time.monotonic()
    network.start(village)
    restart_s = time.monotonic() - began
    time.sleep(SETTLE_S)
    again = _memory(village)
    bare = _bare_process()
    bits = idle.wire * 8 / IDLE_S
    return [
        (
            f"first fetch of a catalogue of {BUNDLES:,}",
            f"{catalogue_s:.0f} s ({catalogue_cpu_s:.0f} s CPU), {catalogue.payload / 1e6:.2f} MB on the link, "
            f"{catalogue.payload / payload:.2f} of the signed files",
        ),
        (
            f"then {HELD} small bundles",
            f"{held_s - catalogue_s:.0f} s ({held_cpu_s - catalogue_cpu_s:.0f} s CPU)",
        ),
        (
            "one bundle more, published to complete",
            f"{one_s:.1f} s, {one.payload:,} B on the control link",
        ),
        (f"idle village, resident (goal {MEMORY_GOAL_MIB} MiB)", str(first)),
        ("the same after a restart", str(again)),
        ("python that imports libtorrent, tuf, trio and has a session", str(bare)),
        (
            "village / that",
            f"{first.rss / bare.rss:.2f}, after a restart {again.rss / bare.rss:.2f}",
        ),
        ("restart until it answers", f"{restart_s:.1f} s"),
        (f"idle village, CPU over {IDLE_S} s", f"{idle_cpu:.2%} of a core"),
        (
            "idle link on the wire, both directions (goal 1 kbit/s)",
            f"{idle.wire * 3600 // IDLE_S:,} B an hour = {bits / 1000:.3f} kbit/s",
        ),
    ]


def _one_more(world: _World, relay: _Relay) -> tuple[float, Count]:
    """Publish one bundle; seconds until the village has it, and bytes over its control link."""
    made = _payloads(world.nation, 1, first=HELD)
    before = relay.count()
    began = time.monotonic()
    publish(world.nation, made, iter(()))
    world.network.ask(world.nation, "authority.changed")
    wait(lambda: _held(world.village) > HELD)
    return time.monotonic() - began, relay.count() - before


_BARE = """
import cryptography.x509, libtorrent, msgspec, sqlite3, ssl, structlog, sys, trio, tuf.ngclient, zstandard
session = libtorrent.session({"listen_interfaces": "127.0.0.1:0", "enable_dht": False, "enable_lsd": False})
print("ready", flush=True)
sys.stdin.read()
"""


def _bare_process() -> Memory:
    process = subprocess.Popen(
        [sys.executable, "-c", _BARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    found = memory_of(process.pid)
    process.communicate()
    return found


# Downloading.


def _download(world: _World) -> Rows:
    """The village and a plain libtorrent process after one another, the same payload at the same cap."""
    network, nation, village = world.network, world.nation, world.village
    size = LINK_KBIT_S * 125 * (DOWNLOAD_S + 60)
    network.stop(village)
    village.paths.config.write_text(
        f"[bandwidth]\ndown_kbit_s = {LINK_KBIT_S}\nup_kbit_s = {LINK_KBIT_S}\n\n"
        + village.paths.config.read_text()
    )
    network.start(village)
    (descriptor,) = _payloads(nation, 1, size=size, first=HELD + 1)
    publish(nation, [descriptor], iter(()))
    network.ask(nation, "authority.changed")
    done = lambda: network.progress(village, descriptor.id, 1)  # noqa: E731
    wait(lambda: done() > 0.05)
    share, rate = _over(lambda: _cpu_s(village), lambda: done() * size)
    network.stop(village)
    torrent = nation.paths.torrents / f"{descriptor.infohash.hex()}.torrent"
    peer = f"{nation.address}:{SWARM_PORT}"
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-c", _PLAIN, str(torrent), peer, folder, str(LINK_KBIT_S * 125)],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            while float(next(lines)) < size * 0.05:
                pass
            plain_share, plain_rate = _over(
                lambda: cpu_s(process.pid), lambda: float(next(lines)), is_live=True
            )
        finally:
            process.kill()
            process.wait()
    return [
        (
            f"village downloading at {LINK_KBIT_S} kbit/s, CPU over {DOWNLOAD_S} s (goal about 2 %)",
            f"{share:.2%} of a core at {rate * 8 / 1000:.0f} kbit/s",
        ),
        (
            "plain libtorrent process, the same",
            f"{plain_share:.2%} at {plain_rate * 8 / 1000:.0f} kbit/s",
        ),
        ("village / plain", f"{share / plain_share:.1f}"),
    ]


def _over(
    cpu: Callable[[], float], done: Callable[[], float], *, is_live: bool = False
) -> tuple[float, float]:
    """CPU share and bytes a second over the time of measuring; `is_live`: `done` must be read all the time."""
    used, got, began = cpu(), done(), time.monotonic()
    if is_live:
        while time.monotonic() - began < DOWNLOAD_S:
            last = done()
    else:
        time.sleep(DOWNLOAD_S)
        last = done()
    lasted = time.monotonic() - began
    return (cpu() - used) / lasted, (last - got) / lasted


_PLAIN = """
import sys, time
import libtorrent as lt
torrent, peer, folder, limit = sys.argv[1:]
host, port = peer.rsplit(":", 1)
session = lt.session({
    "listen_interfaces": "127.0.0.1:0", "enable_dht": False, "enable_lsd": False, "enable_upnp": False,
    "enable_natpmp": False, "enable_outgoing_tcp": False, "download_rate_limit": int(limit),
    "upload_rate_limit": int(limit), "in_enc_policy": 2, "out_enc_policy": 2,
})
rules = lt.ip_filter()
rules.add_rule("0.0.0.0", "255.255.255.255", 1 << lt.session.global_peer_class_id)
session.set_peer_class_filter(rules)
parameters = lt.load_torrent_file(torrent)
parameters.save_path = folder
handle = session.add_torrent(parameters)
handle.connect_peer((host, int(port)))
while True:
    print(handle.status().total_done, flush=True)
    time.sleep(1)
"""


# A county.


def _county(world: _World) -> Rows:
    """Its whole daemon, with the same catalogue, and 1,000 children that hold what a village holds."""
    network, county = world.network, world.county
    codes = [
        Division(f"{COUNTY[:6]}{100 + number // 100:03}{number % 100 + 1:03}")
        for number in range(CHILDREN)
    ]
    folder = county.folder / "children"
    _take_in(county, codes, folder)
    network.start(county)
    wait(lambda: _listed(county) >= BUNDLES)
    wait(lambda: _held(county) >= HELD)
    time.sleep(SETTLE_S)
    pid = _pid(county)
    before = memory_of(pid)
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    children = fork.Process(
        target=_children_process, args=(there, codes, folder, county.address, world.held)
    )
    children.start()
    try:
        connected_s = here.recv()
        wait(lambda: len(network.status(county).children) >= CHILDREN)
        time.sleep(SETTLE_S)
        silent = memory_of(pid)
        cpu = cpu_s(pid)
        time.sleep(PING_AFTER_S[Role.CHILD])
        share = (cpu_s(pid) - cpu) / PING_AFTER_S[Role.CHILD]
        here.send("tell")
        here.recv()
        wait(
            lambda: (
                sum(child.bundles_done for child in network.status(county).children)
                >= CHILDREN * HELD
            )
        )
        time.sleep(SETTLE_S)
        after = memory_of(pid)
    finally:
        children.terminate()
        children.join()
    return [
        (
            f"county with the catalogue and {HELD} bundles, resident",
            str(before),
        ),
        (f"{CHILDREN:,} children connected in", f"{connected_s:.0f} s"),
        (
            f"{CHILDREN:,} idle children, memory a child (RSS)",
            f"{(silent.rss - before.rss) / CHILDREN / 1024:.1f} KiB",
        ),
        (
            f"more once each has told of {HELD} bundles",
            f"{(after.rss - silent.rss) / CHILDREN / 1024:.1f} KiB",
        ),
        (
            f"{CHILDREN:,} idle children, CPU with a ping of each",
            f"{share:.2%} of a core",
        ),
    ]


def _take_in(county: Place, codes: Sequence[Division], folder: Path) -> None:
    """Certificates and members lines for all at once."""
    repository = AuthorityRepository(county.paths.authority)
    keys = repository.load().settings.keys
    ring = KeyRing(county.sticks, _Passphrase())
    chain, ca_key = ca_chain(repository), ring.private_key(keys["ca"], "ca")
    now = dt.datetime.now(dt.UTC)
    members = list(repository.members().members.values())
    for code in codes:
        key = new_key()
        certificate = issue_node_certificate(code, key.public_key(), chain[0], ca_key, now=now)
        files = KeyFiles(folder / code)
        (folder / code).mkdir(parents=True)
        files.key.write_bytes(private_key_pem(key))
        files.chain.write_bytes(chain_pem([certificate, *chain[:-1]]))
        files.anchor.write_bytes(chain_pem([chain[-1]]))
        end = certificate.not_valid_after_utc.date()
        members.append(Member(code, certificate_spki(certificate), "active", now.date(), end))
    signer = ring.signer(keys["enrolment"], "enrolment")
    repository.set_members(MembersList.of(members), signer, now=now)


def _children_process(
    pipe: Connection,
    codes: Sequence[Division],
    folder: Path,
    host: str,
    held: Sequence[bytes],
) -> None:
    address = ParentAddress(COUNTY, host, CONTROL_PORT)
    haves = [HaveItem(infohash, HaveState.COMPLETE, 1000) for infohash in held]

    async def connect() -> None:
        began = time.monotonic()
        limit = trio.Semaphore(50)
        links = []

        async def child(code: Division) -> None:
            async with limit:
                dial = tls_dialler(client_context(folder / code), peer_identity)
                link = make_child(Rest(), folder, dial, address, code=code)
                nursery.start_soon(link.run)
                await link.wait_session()
            links.append(link)

        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as starting:
                for code in codes:
                    starting.start_soon(child, code)
            pipe.send(time.monotonic() - began)
            await trio.to_thread.run_sync(pipe.recv, abandon_on_cancel=True)
            for link in links:
                (await link.wait_session()).report_status(haves)
            pipe.send("told")
            await trio.sleep_forever()

    trio.run(connect)


# Measuring.


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes: resident, this process's share of what is shared, and the highest resident since its start."""

    rss: int
    pss: int
    peak: int

    def __str__(self) -> str:
        return (
            f"{self.rss / _MIB:.1f} MiB (PSS {self.pss / _MIB:.1f}, highest {self.peak / _MIB:.1f})"
        )


def memory_of(pid: int) -> Memory:
    """Of one process now."""
    folder = Path("/proc") / str(pid)

    def kib(name: str, line: str) -> int:
        text = (folder / name).read_text()
        return next(int(row.split()[1]) for row in text.splitlines() if row.startswith(f"{line}:"))

    return Memory(
        1024 * kib("status", "VmRSS"),
        1024 * kib("smaps_rollup", "Pss"),
        1024 * kib("status", "VmHWM"),
    )


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _pid(place: Place) -> int:
    assert place.process is not None
    return place.process.pid


def _memory(place: Place) -> Memory:
    return memory_of(_pid(place))


def _cpu_s(place: Place) -> float:
    return cpu_s(_pid(place))


def wait(condition: Callable[[], bool]) -> None:
    """Look twice a second until it is so.

    Raises:
        TimeoutError: it never is.
    """
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.5)


def _listed(place: Place) -> int:
    return _count(place, "SELECT count(*) FROM bundles")


def _held(place: Place) -> int:
    return _count(place, "SELECT count(*) FROM states WHERE state = 'complete'")


def _count(place: Place, query: str) -> int:
    """Asked of the file, so that asking costs the daemon nothing."""
    try:
        with closing(sqlite3.connect(f"file:{place.paths.database}?mode=ro", uri=True)) as database:
            return int(database.execute(query).fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def _edit(place: Place, old: str, new: str) -> None:
    text = place.paths.config.read_text()
    if old not in text:
        raise RuntimeError(f"{old} isn't in {place.paths.config}")
    place.paths.config.write_text(text.replace(old, new))


@dataclass(frozen=True, slots=True)
class Count:
    """Bytes of TLS, and about what they were on the wire."""

    payload: int
    wire: int

    def __sub__(self, other: Count) -> Count:
        return Count(self.payload - other.payload, self.wire - other.wire)


class _Relay:
    """Between a child and its parent, in a thread: passes bytes on and counts them."""

    def __init__(self, parent: str, child: str) -> None:
        self._parent = parent
        self._child = child
        self._payload = 0
        self._wire = 0
        self._ready = threading.Event()
        self._port = 0
        threading.Thread(target=trio.run, args=(self._serve,), daemon=True).start()
        self._ready.wait()

    @property
    def address(self) -> str:
        """Where the child dials."""
        return f"{self._parent}:{self._port}"

    def count(self) -> Count:
        return Count(self._payload, self._wire)

    async def _serve(self) -> None:
        listeners = await trio.open_tcp_listeners(0, host=self._parent)
        self._port = listeners[0].socket.getsockname()[1]
        self._ready.set()
        await trio.serve_listeners(self._pass_on, listeners)

    async def _pass_on(self, stream: trio.SocketStream) -> None:
        try:
            # From the child's own address: the parent takes it for that of its swarm.
            far = await trio.open_tcp_stream(self._parent, CONTROL_PORT, local_address=self._child)
        except OSError:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._copy, stream, far)
            nursery.start_soon(self._copy, far, stream)

    async def _copy(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        try:
            while data := await source.receive_some():
                segments = -(-len(data) // SEGMENT_BYTES)
                self._payload += len(data)
                self._wire += len(data) + HEADER_BYTES * (segments + -(-segments // 2))
                await sink.send_all(data)
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


if __name__ == "__main__":
    for measured, figure in measure(sys.argv[1:] or ("village", "download", "county")):
        print(f"{measured}: {figure}")
