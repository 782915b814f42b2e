"""What is wrong with a volume, a receipt, or a medium."""

from __future__ import annotations

from cuntong_protocol.errors import CuntongError, Fault


class MediaError(CuntongError):
    """A volume or a receipt that can't be used, or a medium that can't be written or read."""

    fault = Fault.CONTENT
