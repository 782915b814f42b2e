"""Formats and rules of the Cuntong network: no I/O, no clock, no trio. Specified in SPEC.md."""
