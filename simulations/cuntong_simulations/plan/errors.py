"""The planner's errors."""

from cuntong_protocol.errors import CuntongError, Fault


class PlanError(CuntongError):
    """The scenario can't be planned for."""

    fault = Fault.CONFIG
