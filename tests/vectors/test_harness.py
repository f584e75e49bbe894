"""The harness itself: another directory, a missing driver, a wrong answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.vectors.conftest import DATA

ROOT = Path(__file__).parent.parent.parent


def run_vectors(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "tests/vectors/test_vectors.py", "-q", "--vectors", str(directory)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)


def document(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DATA / name).read_text())
    return loaded


def test_another_directory_is_judged_by_the_same_list(tmp_path: Path) -> None:
    cases = document("dht_verify_encoding.json")["verify"]
    (tmp_path / "dht_verify_encoding.json").write_text(json.dumps({"reference": "x", "verify": cases[::-3]}))
    result = run_vectors(tmp_path)
    assert result.returncode == 0, result.stdout
    assert f"{len(cases[::-3]):6}  dht_verify_encoding" in result.stdout
    assert "not_canonical" in result.stdout


def test_what_agrees_with_nothing_fails(tmp_path: Path) -> None:
    changed = document("wire_address.json")
    changed["format"][0]["wire"] = "00" * 6
    changed["format"][0]["parsed_port"] += 1
    (tmp_path / "wire_address.json").write_text(json.dumps(changed))
    (tmp_path / "news.json").write_text("{}")
    result = run_vectors(tmp_path)
    assert result.returncode == 1
    assert "1 of 60 cases differ" in result.stdout
    assert "news.json has no driver" in result.stdout


def test_an_empty_directory_is_an_error(tmp_path: Path) -> None:
    assert run_vectors(tmp_path).returncode != 0
