"""What a program loads: each package no more than it is built on, and the root nothing until it is asked."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import a2al_trio

ROOT = Path(__file__).parents[1]

BUILT_ON = {
    "errors": "",
    "cbor": "errors",
    "scopes": "errors",
    "drive": "errors machine net scopes",
    "identity": "cbor errors",
    "wire": "cbor errors identity net",
    "net.socket": "errors",
    "net.mux": "errors scopes",
    "ice": "errors machine net scopes",
    "quic": "errors machine net scopes",
    "h3": "errors machine net quic scopes",
    "signaling": "cbor errors identity net scopes",
    "dht": "cbor drive errors identity machine net scopes wire",
    "nat.portmap": "cbor errors identity net scopes wire",
    "punch": "cbor dht drive errors ice identity machine net quic scopes signaling wire",
    "host": "cbor dht drive errors ice identity machine nat net punch quic scopes signaling wire",
    "http": "cbor dht drive errors host ice identity machine nat net punch quic scopes signaling wire",
    "cli.commands": "errors",
    "cli.identity": "cbor errors identity",
    "cli.hub": "cbor errors identity net scopes signaling",
}
"""What else of ours comes with a module."""

LIBRARIES = {
    "a2al_trio": "",
    "a2al_trio.cli": "",
    "a2al_trio.cli.commands": "attrs click trio",
    "a2al_trio.cli.identity": "attrs click coincurve cryptography nacl trio",
    "a2al_trio.ice": "attrs ifaddr trio",
    "a2al_trio.quic": "attrs cryptography trio",
    "a2al_trio.host": "attrs coincurve cryptography defusedxml h11 ifaddr nacl trio trio_websocket wsproto",
}
"""The libraries of pyproject.toml that come with a module."""

KNOWN = frozenset(" ".join(LIBRARIES.values()).split()) | {"Crypto", "cbor2", "httpx", "hypercorn", "pylsqpack", "rich"}

WATCH = """
import builtins, importlib, json, sys

edges, original = {}, builtins.__import__

def watched(name, globals=None, locals=None, fromlist=(), level=0):
    module = original(name, globals, locals, fromlist, level)
    if globals and level == 0:
        found = [f"{name}.{each}" for each in fromlist or () if f"{name}.{each}" in sys.modules]
        edges.setdefault(globals["__name__"], set()).update([name, *found])
    return module

builtins.__import__ = watched
for name in sys.argv[1:]:
    importlib.import_module("a2al_trio." + name)
print(json.dumps({name: sorted(imported) for name, imported in edges.items()}))
"""


@pytest.fixture(scope="module")
def imported() -> dict[str, list[str]]:
    """Every module, and what it imports when it is itself imported."""
    done = subprocess.run([sys.executable, "-c", WATCH, *BUILT_ON], capture_output=True, check=True, cwd=ROOT)
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def loaded_by(name: str, imported: dict[str, list[str]]) -> set[str]:
    """All that is loaded with a module, the packages that hold it included."""
    loaded: set[str] = set()
    ahead = [name]
    while ahead:
        name = ahead.pop()
        if name not in loaded:
            loaded.add(name)
            ahead += imported.get(name, ())
            ahead += [name.rpartition(".")[0]] if "." in name else []
    return loaded


@pytest.mark.parametrize("name", BUILT_ON)
def test_a_package_loads_what_it_is_built_on(name: str, imported: dict[str, list[str]]) -> None:
    ours = {each.split(".")[1] for each in loaded_by(f"a2al_trio.{name}", imported) if each.startswith("a2al_trio.")}
    assert " ".join(sorted(ours - {name.split(".")[0]})) == BUILT_ON[name]


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_is_loaded_by_those_who_need_it(name: str, imported: dict[str, list[str]]) -> None:
    libraries = {each.split(".")[0] for each in loaded_by(name, imported)}
    assert " ".join(sorted(libraries & KNOWN)) == LIBRARIES[name]


def test_the_root_has_what_it_names() -> None:
    tree = ast.parse(Path(a2al_trio.__file__).read_text())
    homes = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    assert sorted(homes) == a2al_trio.__all__
    for name, home in homes.items():
        assert getattr(a2al_trio, name) is getattr(importlib.import_module(home), name)
        assert name in dir(a2al_trio)


def test_the_root_has_nothing_else() -> None:
    with pytest.raises(AttributeError, match="module 'a2al_trio' has no attribute 'open_hots'"):
        a2al_trio.open_hots  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="open_hots"):
        exec("from a2al_trio import open_hots")
