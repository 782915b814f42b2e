"""The `cuntong` command."""
