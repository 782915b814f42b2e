"""Errors of results."""

from cuntong_protocol.errors import CuntongError, Fault


class ResultsError(CuntongError):
    """Results can't be written where they should be, or read where they should lie."""

    fault = Fault.USAGE
