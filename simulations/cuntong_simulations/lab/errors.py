"""The laboratory's errors."""

from cuntong_protocol.errors import CuntongError, Fault


class LabError(CuntongError):
    """The laboratory can't do what was asked."""

    fault = Fault.SYSTEM


class LabFileError(LabError):
    """A topology or a scenario can't be used."""

    fault = Fault.CONFIG
