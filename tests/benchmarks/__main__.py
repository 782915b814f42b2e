"""`python -m tests.benchmarks [NAME…]`: run the benchmarks and print one table.

A benchmark is a module of this package with `run() -> list[tuple[str, str]]`: what was measured, and the
figure beside its goal. Each compares with something else in the same run; none is part of the tests.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import time
import traceback

from rich.console import Console
from rich.table import Table

import tests.benchmarks


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all; 1 when one of them broke off."""
    found = sorted(
        module.name
        for module in pkgutil.iter_modules(tests.benchmarks.__path__)
        if module.name[0] != "_"
    )
    if unknown := set(names) - set(found):
        sys.stderr.write(
            f"No such benchmark: {', '.join(sorted(unknown))}. There are: {', '.join(found)}\n"
        )
        return 64
    table = Table("benchmark", "measured", "figure", title="Cuntong, measured side by side")
    broken = False
    for name in names or found:
        module = importlib.import_module(f"tests.benchmarks.{name}")
        if not hasattr(module, "run"):
            continue
        sys.stderr.write(f"{name} …\n")
        started = time.perf_counter()
        try:
            rows = module.run()
        except Exception:  # noqa: BLE001 - one that breaks off doesn't take the others with it.
            traceback.print_exc()
            rows, broken = [("broke off", "see above")], True
        sys.stderr.write(f"{name}: {time.perf_counter() - started:.0f} s\n")
        for number, (measured, figure) in enumerate(rows):
            table.add_row(name if number == 0 else "", measured, figure)
        table.add_section()
    Console().print(table)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
