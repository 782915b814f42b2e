"""The bundle's fuzz target, shortly, with fixed seeds."""

from __future__ import annotations

from itertools import islice

import pytest

from tests.fuzz.fuzz_bundle import mutations, seeds, target


def test_good_files_are_taken() -> None:
    assert all(target(data) for data in seeds())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nearly_good_bytes_are_refused_or_sound(seed: int) -> None:
    for data in islice(mutations(seed), 3000):
        target(data)
