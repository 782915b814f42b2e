"""The compiled model against the plain one, against itself, and against the memory."""

import os
import subprocess
import sys
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from cuntong_simulations.model.errors import ModelError
from cuntong_simulations.model.memory import estimate, refuse_too_large
from cuntong_simulations.model.outcome import Outcome
from cuntong_simulations.model.reference import run_reference
from cuntong_simulations.model.run import run
from cuntong_simulations.model.trials import Network, draw
from cuntong_simulations.scenario.units import Share

_HASHED = """
import hashlib
from cuntong_simulations.model.run import run
from cuntong_simulations.model.trials import draw
made = draw({seed})
found = run(made.scenario, made.country, made.bundles, threads={threads}, heard=made.heard)
told = hashlib.sha256()
for part in (found.done_h, found.carried, found.link_bytes, found.link_room, found.held_back):
    told.update(part.tobytes())
print(told.hexdigest())
"""


def _run(seed: int) -> Outcome:
    made = draw(seed)
    return run(made.scenario, made.country, made.bundles, heard=made.heard)


@pytest.mark.parametrize("seed", range(60))
def test_the_compiled_model_agrees_with_the_plain_one(seed: int) -> None:
    _compare(draw(seed))


@pytest.mark.parametrize("seed", range(5))
def test_they_agree_when_siblings_give_each_other_nothing(seed: int) -> None:
    made = draw(seed)
    calibration = msgspec.structs.replace(made.scenario.calibration, eta=Share(0.0))
    _compare(
        replace(made, scenario=msgspec.structs.replace(made.scenario, calibration=calibration))
    )


def _compare(made: Network) -> None:
    found = run(made.scenario, made.country, made.bundles, heard=made.heard)
    plain = run_reference(
        made.scenario,
        made.country,
        made.bundles,
        calibration=made.scenario.calibration,
        sky=made.heard,
    )
    assert np.array_equal(np.isnan(found.done_h), np.isnan(plain.done_h))
    np.testing.assert_allclose(found.done_h, plain.done_h, rtol=1e-6, atol=1e-4)
    for name in ("carried", "link_bytes", "link_room", "held_back"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(plain, name), rtol=1e-6, atol=1e-3, err_msg=name
        )


def _hash(seed: int, threads: int, *, is_plain: bool = False) -> str:
    environment = os.environ | ({"NUMBA_DISABLE_JIT": "1"} if is_plain else {})
    done = subprocess.run(
        [sys.executable, "-c", _HASHED.format(seed=seed, threads=threads)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_two_threads_and_no_compiler_give_the_same_bytes(seed: int) -> None:
    one = _hash(seed, 1)
    assert _hash(seed, 2) == one
    assert _hash(seed, 1, is_plain=True) == one


def test_a_run_that_is_cancelled_ends_after_the_day() -> None:
    made = draw(1)
    told: list[float] = []

    def tell(share: float) -> None:
        told.append(share)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(made.scenario, made.country, made.bundles, tell=tell)
    assert told == [1 / made.scenario.run.days]


def test_a_run_that_does_not_fit_is_refused_with_the_estimate() -> None:
    needed = estimate(643_000, 50, 128_000)
    assert needed < 1_000_000_000
    refuse_too_large(needed, available=needed)
    with pytest.raises(ModelError) as caught:
        refuse_too_large(needed, available=needed - 1)
    assert caught.value.code == "sim.too-large"
    assert f"{needed // 1_000_000} MB" in str(caught.value)
