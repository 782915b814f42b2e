"""The model's errors."""

from cuntong_protocol.errors import CuntongError, Fault


class ModelError(CuntongError):
    """A scenario can't be computed here."""

    fault = Fault.SYSTEM
