"""What goes wrong on a control link."""

from __future__ import annotations

from cuntong_protocol.errors import CuntongError, Fault
from cuntong_protocol.texts import Sentence


class LinkError(CuntongError):
    """The link must be given up, or couldn't be made. Unless said otherwise it is the peer's fault."""

    fault = Fault.PEER


class LinkRefusedError(LinkError):
    """The parent doesn't take this node; the sentence is the parent's."""

    fault = Fault.REFUSED

    def __init__(self, reason: Sentence) -> None:
        super().__init__(reason.code, reason.template)
        self.sentence = reason


class LinkClosedError(LinkError):
    """The other end said goodbye; the sentence is its own."""

    fault = Fault.TRANSPORT

    def __init__(self, reason: Sentence) -> None:
        super().__init__(reason.code, reason.template)
        self.sentence = reason
