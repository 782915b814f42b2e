"""A scenario's errors."""

from cuntong_protocol.errors import CuntongError, Fault


class ScenarioError(CuntongError):
    """A scenario, or a file that it names, can't be used."""

    fault = Fault.CONFIG
