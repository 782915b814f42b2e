"""Bundles whose licence names who may hold them: real daemons, closed swarms (SPEC 7.6)."""

from __future__ import annotations

from pathlib import Path

from cuntong_protocol.bundle.torrent import decode_torrent
from cuntong_tools.demo.network import Place
from tests.support.world import EAST, NATION, WEST, Bundle, World, assert_same_folder, make_films


def swarm_certificate(place: Place, publisher: str = NATION) -> Path:
    return place.paths.keys / "swarm" / f"{publisher}.der"


def is_closed_at(place: Place, bundle: Bundle) -> bool:
    data = (place.paths.torrents / f"{bundle.infohash.hex()}.torrent").read_bytes()
    return decode_torrent(data, infohash=bundle.infohash).is_closed


def test_restricted_bundle_reaches_the_village_it_is_for_and_no_other(
    world: World, tmp_path: Path
) -> None:
    folder = make_films(tmp_path / "archive", [400_000, 90_000], seed=11)
    world.start()
    bundle = world.publish(world.nation, folder, may_hold=[WEST])
    holders = [world.nation, world.province, world.county, world.west]
    world.until_complete(bundle, *holders)
    for place in holders:
        assert_same_folder(folder, world.library(place, bundle))
        assert is_closed_at(place, bundle)
        assert swarm_certificate(place).exists()
    # Its neighbour knows of it, may not hold it, and doesn't even ask to join.
    world.run(world.east, "order", bundle.id)
    why = world.run(world.east, "status", "--why", bundle.id, "--json")
    assert "selection.licence-scope" in why
    assert not swarm_certificate(world.east).exists()
    assert not world.store(world.east, bundle).exists()
    # An open bundle goes on as before, also at places that take part in closed swarms.
    opened = world.publish(world.nation, make_films(tmp_path / "news", [50_000], seed=12))
    world.until_complete(opened)
    assert not is_closed_at(world.west, opened)


def test_village_waits_with_a_reason_until_the_publisher_can_be_reached(
    world: World, tmp_path: Path
) -> None:
    folder = make_films(tmp_path / "archive", [200_000], seed=13)
    above = [world.nation, world.province, world.county]
    world.start(*above)
    bundle = world.publish(world.nation, folder, may_hold=[WEST, EAST])
    world.until_complete(bundle, *above)
    world.net.stop(world.nation)
    world.start(world.west)

    def is_waiting() -> bool:
        found = world.bundle(world.west, bundle.id)
        return (
            found is not None
            and found.state == "waiting"
            and found.reason is not None
            and found.reason.code == "admission.waiting"
        )

    world.until("the village waits for its certificate", is_waiting)
    world.start(world.nation)
    world.until_complete(bundle, world.west)
    assert_same_folder(folder, world.library(world.west, bundle))


def test_daemons_that_start_again_serve_closed_swarms_at_once(world: World, tmp_path: Path) -> None:
    folder = make_films(tmp_path / "archive", [200_000], seed=14)
    above = [world.nation, world.province, world.county]
    world.start(*above)
    bundle = world.publish(world.nation, folder, may_hold=[WEST])
    world.until_complete(bundle, *above)
    issued = swarm_certificate(world.county).read_bytes()
    world.net.kill(world.county)
    world.start(world.county)
    world.start(world.west)
    world.until_complete(bundle, world.west)
    assert_same_folder(folder, world.library(world.west, bundle))
    assert swarm_certificate(world.county).read_bytes() == issued


def test_authority_without_a_swarm_ca_makes_one_when_it_needs_it(
    world: World, tmp_path: Path
) -> None:
    ca = world.county.paths.authority / "keys" / "swarm-ca.pem"
    ca.unlink()  # As those that were founded by an older version.
    folder = make_films(tmp_path / "archive", [100_000], seed=15)
    world.start()
    bundle = world.publish(world.county, folder, may_hold=[WEST])
    world.until_complete(bundle, world.county, world.west)
    assert ca.stat().st_mode & 0o777 == 0o600
    assert swarm_certificate(world.west, world.county.code).exists()
    # A revision belongs to the same CA, so the certificate that is there opens it.
    issued = swarm_certificate(world.west, world.county.code).read_bytes()
    (folder / "more.txt").write_text("more")
    second = world.revise(world.county, bundle, folder)
    world.until_complete(second, world.county, world.west)
    assert_same_folder(folder, world.library(world.west, second))
    assert swarm_certificate(world.west, world.county.code).read_bytes() == issued
