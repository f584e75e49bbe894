"""The golden vectors as tests: one per file of the data directory, or of `pytest --vectors DIR`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.vectors.deviations import DEVIATIONS

DATA = Path(__file__).parent / "data"

cases_per_file = pytest.StashKey[Counter[str]]()
deviation_counts = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash.setdefault(cases_per_file, Counter())
    config.stash.setdefault(deviation_counts, Counter())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "vector_file" not in metafunc.fixturenames:
        return
    directory = Path(metafunc.config.getoption("--vectors", default=None) or DATA)
    files = sorted(directory.glob("*.json"))
    if not files:
        raise pytest.UsageError(f"no vector files (*.json) in {directory}")
    metafunc.parametrize("vector_file", files, ids=[file.stem for file in files])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    counts = config.stash.get(cases_per_file, Counter())
    if not counts:
        return
    deviated = config.stash.get(deviation_counts, Counter())
    terminalreporter.section("golden vectors")
    for name, count in sorted(counts.items()):
        terminalreporter.write_line(f"{count:6}  {name}")
    terminalreporter.write_line(f"{sum(counts.values()):6}  cases in {len(counts)} files")
    for deviation in DEVIATIONS:
        count = deviated[deviation.name]
        terminalreporter.write_line(f"{count:6}  {deviation.name}: {deviation.direction.value}")
