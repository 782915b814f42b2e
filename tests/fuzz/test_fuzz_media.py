"""The fuzz target of disks and discs by post, shortly, with fixed seeds."""

from __future__ import annotations

from itertools import islice

import pytest

from tests.fuzz.fuzz_media import READERS, mutations, seeds, target


def test_good_ones_are_taken_and_every_reader_takes_one() -> None:
    taken = [target(data) for data in seeds()]
    assert all(taken)
    assert set().union(*taken) == {read.__name__ for read in READERS}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nearly_good_bytes_are_refused_or_sound(seed: int) -> None:
    for data in islice(mutations(seed), 3000):
        target(data)
