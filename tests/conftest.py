"""What all tests share."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Let signals do what they do at a terminal: the background of a shell ignores Ctrl-C, `nohup` that it is closed.

    Whoever is started by a test would inherit that.
    """
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)
