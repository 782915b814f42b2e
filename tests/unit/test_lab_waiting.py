"""Programs that have to be asked again and again."""

from __future__ import annotations

import time

import pytest

from cuntong_simulations.lab.errors import LabError
from cuntong_simulations.lab.waiting import poll


def test_program_that_never_gets_ready_ends_the_wait_with_its_own_error() -> None:
    with pytest.raises(LabError) as caught:
        poll(
            lambda: False,
            every_s=0.0,
            deadline=time.monotonic(),
            failure=lambda: LabError("lab.not-ready", "still starting"),
        )
    assert caught.value.code == "lab.not-ready"


def test_program_that_is_ready_is_believed_after_the_deadline_too() -> None:
    answers = iter([False, True])
    poll(
        lambda: next(answers),
        every_s=0.0,
        deadline=float("inf"),
        failure=lambda: LabError("lab.not-ready", "-"),
    )
    poll(
        lambda: True,
        every_s=0.0,
        deadline=float("-inf"),
        failure=lambda: LabError("lab.not-ready", "-"),
    )
    assert next(answers, None) is None
