"""The base of all errors: whose fault it is, a stable code, one sentence for a person."""

from __future__ import annotations

import enum

from .texts import Sentence, sentence


class Fault(enum.Enum):
    """Whose fault an error is. The value is the exit code of a command that ends with it (sysexits.h)."""

    USAGE = 64
    CONTENT = 65
    TRANSPORT = 69
    OURS = 70
    SYSTEM = 74
    PEER = 76
    REFUSED = 77
    CONFIG = 78


class CuntongError(Exception):
    """Base class. `raise BundleError("build.empty-folder", N_("{folder} holds no files."), folder=…)`.

    Attributes:
        fault: Whose fault it is; subclasses set their usual one, an instance may say otherwise.
        sentence: What to tell a person. `str(error)` is its English form.
    """

    fault: Fault = Fault.OURS

    def __init__(
        self, code: str, template: str, /, *, fault: Fault | None = None, **params: str | int
    ) -> None:
        self.sentence: Sentence = sentence(code, template, **params)
        if fault is not None:
            self.fault = fault
        super().__init__(code, template, params)

    @property
    def code(self) -> str:
        return self.sentence.code

    def __str__(self) -> str:
        return self.sentence.render()
