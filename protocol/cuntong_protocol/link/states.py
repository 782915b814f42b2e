"""Who may say what, and when: the whole conversation as one table (SPEC 6.2).

Theory of operation. A link has two ends with fixed roles: the CHILD dialled, the PARENT was dialled.
Both keep the same state, because it changes only with messages and each end applies the same table to
what it sends and to what it receives:

    HELLO ──Hello(child)──▶ ANSWER ──Welcome(parent)──▶ OPEN ──Bye(either), Refused(parent)──▶ CLOSED
                               └────Refused(parent)────▶ CLOSED

* Before OPEN nothing but the greeting may pass, in frames of at most 4 KiB, within 15 s: a stranger
  learns nothing and costs little.
* In OPEN each end speaks when it likes. The two can only disagree on the state when both close at
  once; then each ignores what still comes in.
* Objects flow both ways: whoever got an `Announce` asks with `Get`. Answers are counted against
  what was asked, so an end that didn't ask gets no object bytes (`connection.py`).
* Orders, haves, reports and requests for swarm certificates go up; introductions, notices and certificates of
  both kinds come down.

What isn't in the table is the sender's fault and ends the link.
"""

from __future__ import annotations

import enum

from cuntong_protocol.errors import Fault
from cuntong_protocol.texts import N_

from .errors import LinkError
from .messages import (
    Announce,
    Bandwidth,
    Bye,
    Certificate,
    Get,
    Have,
    Hello,
    Introduce,
    Message,
    NotFound,
    Notice,
    ObjectChunk,
    ObjectHead,
    Order,
    OrderResult,
    Ping,
    Pong,
    Refused,
    Report,
    SwarmCertificate,
    SwarmRequest,
    Welcome,
)


class Role(enum.Enum):
    """An end of the link."""

    CHILD = "child"
    PARENT = "parent"

    @property
    def other(self) -> Role:
        return Role.PARENT if self is Role.CHILD else Role.CHILD


class State(enum.Enum):
    """How far the conversation is."""

    HELLO = "hello"
    ANSWER = "answer"
    OPEN = "open"
    CLOSED = "closed"


_BOTH: dict[type[Message], State] = {
    **dict.fromkeys(
        (Announce, Get, ObjectHead, ObjectChunk, NotFound, Ping, Pong, Bandwidth), State.OPEN
    ),
    Bye: State.CLOSED,
}

TRANSITIONS: dict[State, dict[Role, dict[type[Message], State]]] = {
    State.HELLO: {
        Role.CHILD: {Hello: State.ANSWER},
        Role.PARENT: {},
    },
    State.ANSWER: {
        Role.CHILD: {},
        Role.PARENT: {Welcome: State.OPEN, Refused: State.CLOSED},
    },
    State.OPEN: {
        Role.CHILD: {**_BOTH, **dict.fromkeys((Have, Order, Report, SwarmRequest), State.OPEN)},
        Role.PARENT: {
            **_BOTH,
            **dict.fromkeys(
                (Introduce, OrderResult, Notice, Certificate, SwarmCertificate), State.OPEN
            ),
            Refused: State.CLOSED,
        },
    },
    State.CLOSED: {Role.CHILD: {}, Role.PARENT: {}},
}


def next_state(state: State, sender: Role, kind: type[Message], *, fault: Fault) -> State:
    """The state after `sender` said a message of `kind`.

    Raises:
        LinkError: `link.out-of-order` with `fault`, when it may not say that now.
    """
    try:
        return TRANSITIONS[state][sender][kind]
    except KeyError:
        raise LinkError(
            "link.out-of-order",
            N_("The {sender} may not send {kind} in the state {state}."),
            fault=fault,
            sender=sender.value,
            kind=kind.__name__,
            state=state.value,
        ) from None
