"""Errors about what a sky is made of."""

from __future__ import annotations

from cuntong_simulations.lab.errors import LabError, LabFileError


class SkyError(LabError):
    """The satellite can't be emulated here."""


class SkyFileError(LabFileError):
    """A trace of fades can't be used."""
