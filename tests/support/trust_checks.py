"""What every attack on the trust layer must leave behind: a code, and a state that hasn't moved."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pytest

from cuntong_daemon.trust.view import Refresh
from cuntong_protocol.trust.rules import Listing
from tests.support.trust_repo import Node, Repository

State = tuple[Mapping[str, Listing], frozenset[str], tuple[tuple[str, int, str], ...]]


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that don't cut the power need not wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def state(node: Node) -> State:
    """What readers and followers of this node see."""
    view = node.federation.refresh().view
    return dict(view.listings), frozenset(view.withdrawn), node.federation.announcements()


def codes(refresh: Refresh) -> set[str]:
    """The codes of all problems."""
    return {problem.code for problem in refresh.problems}


def assert_refused(
    node: Node, before: State, code: str, *repositories: Repository, offer: bool = True
) -> Refresh:
    """Offer what the repositories hold, in as many rounds as it takes; nothing of it may be accepted.

    The problem must be told in one of the rounds, and the state must be the same, then and after a restart.
    """
    told: set[str] = set()
    if offer:
        for repository in repositories:
            node.offer(repository)
    refresh = node.federation.refresh()
    told |= codes(refresh)
    for _ in range(12):
        if not node.fetch(refresh, *repositories):
            break
        refresh = node.federation.refresh()
        told |= codes(refresh)
    else:
        raise AssertionError("it asks for ever")
    refresh = node.federation.refresh()
    told |= codes(refresh)
    assert code in told, told
    assert state(node) == before
    node.restart()
    assert state(node) == before
    return refresh
