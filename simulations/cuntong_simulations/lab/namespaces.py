"""Network namespaces: one for each place, held by file descriptors of this process and by nothing else.

The laboratory runs in a process of its own (`isolate`): in a new network and process namespace, and for a
normal user in a new user namespace too. When it ends, however it ends, the kernel ends all that it started
and the namespaces are gone.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import fcntl
import ipaddress
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from cuntong_protocol.texts import N_

from .errors import LabError
from .links import MTU

DEVICE = "link0"
TUN_QUEUE_PACKETS = 2000
"""What the kernel keeps for the emulator: a quarter of a second of the fastest link it is meant for."""
CONGESTION_CONTROL = "cubic"
INSIDE = "CUNTONG_LAB_INSIDE"
"""Set in the environment of the process that has its own namespaces, to the process id of who waits for it outside."""
AGAIN_S = 1.0
"""After so long an end that was asked for is asked for again, unless it goes on."""
HANGS_AFTER_S = 90.0
"""Cleaning up takes a few seconds. After so long the process says where it hangs and ends; the kernel ends the rest."""
CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x1001
NEEDED = ("unshare", "nsenter", "ip")

_libc = ctypes.CDLL(None, use_errno=True)
_asked = 0
"""The signal that asked for the end first."""


def isolate(command: Sequence[str]) -> None:
    """Become `command` in namespaces of its own; returns if this process has them already.

    Raises:
        LabError: `lab.no-tool`, `lab.no-namespaces`, `lab.no-tun`: what is missing.
    """
    if os.environ.get(INSIDE):
        # What is told to end cleans up first; the first process of a process namespace has no defaults.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            # The background of a shell ignores Ctrl-C, `nohup` that the terminal has gone.
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, _end)
        atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)
        return
    unshare = check_can_isolate()
    _allow_cubic()
    sys.stdout.flush()
    os.execvpe("unshare", [*unshare, *command], {**os.environ, INSIDE: str(os.getpid())})  # noqa: S606


def check_can_isolate() -> list[str]:
    """How a command is given namespaces of its own.

    Raises:
        LabError: as `isolate`.
    """
    for tool in NEEDED:
        if shutil.which(tool) is None:
            raise LabError(
                "lab.no-tool",
                N_("The laboratory needs the program {tool}; Debian has it in {package}."),
                tool=tool,
                package="iproute2" if tool == "ip" else "util-linux",
            )
    unshare = ["unshare", "--net", "--pid", "--mount-proc", "--fork", "--kill-child=TERM"]
    if os.geteuid() != 0:
        unshare += ["--user", "--map-root-user"]
    tried = subprocess.run([*unshare, "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        raise LabError(
            "lab.no-namespaces",
            N_(
                "The laboratory needs root, or a kernel that lets users make namespaces; this one refuses: {reason}."
            ),
            reason=(tried.stderr.strip().splitlines() or ["?"])[-1],
        )
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        raise LabError(
            "lab.no-tun",
            N_("The laboratory needs /dev/net/tun, which isn't there or can't be opened."),
        )
    return unshare


def _end(number: int, _frame: FrameType | None) -> None:
    """Leave, ask again later whether that goes on, and in the end leave whatever hangs.

    What a signal's handler raises is lost when Python runs a finalizer or a weak reference's callback just then, as it
    does after each import.
    """
    global _asked
    signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
    if not _asked:
        _asked = number
        faulthandler.dump_traceback_later(HANGS_AFTER_S, exit=True)
    if _is_ending():
        return
    if _asked == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + _asked)


def _is_ending() -> bool:
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, SystemExit | KeyboardInterrupt):
        error = error.__context__
    return error is not None


def outer_pid() -> int:
    """By which process id people see this run; inside of its own namespaces it is number 1."""
    return int(os.environ.get(INSIDE) or os.getpid())


def _allow_cubic() -> None:
    """Let namespaces choose TCP cubic, where root may say so; it changes nobody's choice."""
    allowed = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
    with contextlib.suppress(OSError):
        names = allowed.read_text().split()
        if CONGESTION_CONTROL not in names:
            allowed.write_text(" ".join([*names, CONGESTION_CONTROL]))


class Namespace:
    """A network namespace with one link to the emulator.

    Attributes:
        device: The descriptor of its TUN device; the emulator reads and writes it.
        handle: The descriptor that holds it; who has it can enter.
    """

    def __init__(self, address: str) -> None:
        self.address = ipaddress.ip_address(address)
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.unshare(CLONE_NEWNET))
            self.handle = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self.device = _open_tun(DEVICE)
            self._set_up()
        finally:
            _check(_libc.setns(home, CLONE_NEWNET))
            os.close(home)

    def _set_up(self) -> None:
        bits = self.address.max_prefixlen
        everywhere = "::/0" if self.address.version == 6 else "0.0.0.0/0"
        _ip(
            "link set lo up",
            f"link set {DEVICE} mtu {MTU} txqueuelen {TUN_QUEUE_PACKETS} up",
            f"address add {self.address}/{bits} dev {DEVICE}",
            f"route add {everywhere} dev {DEVICE}",
        )
        # BBR as a host's default hides the queues that are to be measured.
        _sysctl("net/ipv4/tcp_congestion_control", CONGESTION_CONTROL)
        # Each connection begins anew: what one run learnt about a path is not a property of the next.
        _sysctl("net/ipv4/tcp_no_metrics_save", "1")
        # Pings without raw sockets.
        _sysctl("net/ipv4/ping_group_range", "0 0")

    @property
    def prefix(self) -> list[str]:
        """The words before a command that make it run in here."""
        return ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self.handle}", "--"]

    def kernel_drops(self) -> int:
        """Packets that the kernel dropped because the emulator didn't fetch them in time."""
        with entered(self.handle):
            for line in Path("/proc/thread-self/net/dev").read_text().splitlines():
                name, _, counters = line.partition(":")
                if name.strip() == DEVICE:
                    return int(counters.split()[11])
        return 0

    def close(self) -> None:
        """Let it go; it lasts while processes are in it."""
        os.close(self.device)
        os.close(self.handle)


@contextlib.contextmanager
def entered(handle: int) -> Iterator[None]:
    """This thread is inside of a namespace, and so are the sockets that it makes."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(handle, CLONE_NEWNET))
        try:
            yield
        finally:
            _check(_libc.setns(home, CLONE_NEWNET))
    finally:
        os.close(home)


def _open_tun(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN_NO_PI))
    return device


def _ip(*commands: str) -> None:
    done = subprocess.run(
        ["ip", "-batch", "-"],
        input="\n".join(commands) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise LabError(
            "lab.namespace-failed",
            N_("A network namespace can't be set up: {reason}."),
            reason=(done.stderr.strip().splitlines() or ["?"])[0],
        )


def _sysctl(name: str, value: str) -> None:
    path = Path("/proc/sys") / name
    try:
        path.write_text(value)
    except OSError as error:
        raise LabError(
            "lab.namespace-failed",
            N_("A network namespace can't be set up: {reason}."),
            reason=f"{path}: {error.strerror}",
        ) from error


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise LabError(
            "lab.namespace-failed",
            N_("A network namespace can't be set up: {reason}."),
            reason=os.strerror(number),
        )
