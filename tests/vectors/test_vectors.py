"""Every case of every golden vector file agrees with the reference, or differs for a reason that has a name."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections import Counter
from pathlib import Path

import pytest

from tests.vectors.conftest import cases_per_file, deviation_counts


def test_vectors(vector_file: Path, request: pytest.FixtureRequest) -> None:
    stem = vector_file.stem
    driver = f"tests.vectors.drivers.{stem}"
    if importlib.util.find_spec(driver) is None:
        pytest.fail(f"{vector_file.name} has no driver: write tests/vectors/drivers/{stem}.py", pytrace=False)
    document = json.loads(vector_file.read_text(encoding="utf-8"))

    count = 0
    deviations: Counter[str] = Counter()
    failures: list[str] = []
    for case in importlib.import_module(driver).cases(document):
        count += 1
        try:
            deviations.update(deviation.name for deviation in case.run())
        except Exception as error:
            failures.append(f"{case.section} #{count} {case.label}: {type(error).__name__}: {error}")
    request.config.stash[cases_per_file][stem] += count
    request.config.stash[deviation_counts].update(deviations)

    if not count:
        pytest.fail(f"{vector_file.name} holds no cases", pytrace=False)
    if failures:
        shown = "\n".join(failures[:50])
        pytest.fail(f"{len(failures)} of {count} cases differ:\n{shown}", pytrace=False)
