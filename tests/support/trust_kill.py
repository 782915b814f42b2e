"""Kills a node at every write of an update, one after the other, and looks at what is left each time.

    python -m tests.support.trust_kill FOLDER

A process of its own: it forks, and the children die by SIGKILL in an audit hook just before the file operation
or SQL statement whose number is up. Ends with 0 when every death left either the old or the new state.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from datetime import timedelta
from pathlib import Path

from tests.support.trust_checks import codes
from tests.support.trust_repo import PROVINCE, START, Node, TestClock, World

WATCHED = {"os.rename", "os.remove", "os.mkdir", "os.symlink", "os.rmdir", "shutil.rmtree"}
DAY = timedelta(days=1)


class Death:
    """Counts what changes the disk; kills at the number it is given."""

    def __init__(self, number: int) -> None:
        self.left = number

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in WATCHED or (event == "open" and self._writes(arguments)):
            self.step()

    def _writes(self, arguments: tuple[object, ...]) -> bool:
        flags = arguments[2]
        return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))

    def statement(self, sql: str) -> None:
        if not sql.lstrip().upper().startswith("SELECT"):
            self.step()


def main() -> int:
    """Run all deaths; the number of them goes to standard output."""
    os.fsync = lambda _: None  # SIGKILL leaves the page cache alone; only a power cut would not.
    base = Path(sys.argv[1])
    world = World()
    node = Node(base / "start", clock=TestClock(START + DAY))
    node.bootstrap(world.nation)
    node.sync(*world.all)
    node.close()
    old = dict(world.province.files)
    world.province.new_root()
    world.province.list_bundle("update")
    world.province.withdraw(f"{PROVINCE}/202611/yueju")
    world.province.publish(now=START + DAY)
    for number in range(1, 500):
        folder = base / str(number)
        shutil.copytree(base / "start", folder, symlinks=True)
        child = os.fork()
        if child == 0:
            victim = Node(folder, clock=TestClock(START + DAY))
            victim.carry(world.province)
            death = Death(number)
            victim.federation._floors._db.set_trace_callback(death.statement)
            sys.addaudithook(death.audit)
            victim.federation.refresh()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        check(folder, world, old)
        shutil.rmtree(folder)
        if not os.WIFSIGNALED(status):
            print(number - 1)
            return 0 if os.WEXITSTATUS(status) == 0 else 1
    return 1


def check(folder: Path, world: World, old: dict[str, bytes]) -> None:
    """What is there must be whole, must not go back, and must go on by itself."""
    node = Node(folder, clock=TestClock(START + DAY))
    accepted = {code: version for code, version, _ in node.federation.announcements()}
    assert not accepted
    new, yueju = f"{PROVINCE}/202611/update", f"{PROVINCE}/202611/yueju"
    view = node.federation.refresh().view
    assert view.is_complete
    assert (new in view.listings) != (yueju in view.listings)
    verified = node.federation._floors.load(PROVINCE)
    assert verified
    assert verified.documents
    if verified.documents.timestamp == world.province.files["timestamp.json"]:
        node.federation.spool.store_metadata(PROVINCE, "timestamp.json", old["timestamp.json"])
        assert codes(node.federation.refresh()) & {"trust.rollback", "trust.bad-signature"}
    view = node.sync(*world.all).view
    assert new in view.listings
    assert yueju in view.withdrawn
    assert not list(folder.rglob(".tmp-*.json"))
    node.close()


if __name__ == "__main__":
    sys.exit(main())
