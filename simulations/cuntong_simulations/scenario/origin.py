"""Where in which file a scenario says what it says, so that a refusal can name the place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cuntong_simulations.toml import Path, written

from .errors import ScenarioError


@dataclass(frozen=True, slots=True)
class Origin:
    """File and line of every table, key and list element.

    Attributes:
        file: The scenario itself; for what is missing altogether.
        places: By path, all that were extended put together.
    """

    file: str
    places: Mapping[Path, tuple[str, int]]

    def of(self, path: Path) -> tuple[str, int]:
        """Of a value; when it isn't there, of the innermost table around it that is."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return self.file, 1

    def refusal(self, path: Path, code: str, template: str, /, **params: str | int) -> ScenarioError:  # fmt: skip
        """An error whose template has `{file}`, `{line}` and `{key}`."""
        file, line = self.of(path)
        return ScenarioError(
            code, template, fault=None, file=file, line=line, key=written(path), **params
        )
