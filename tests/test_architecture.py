"""The rules the code base is held to: purity, import direction, size caps and explicit exports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "a2al_trio"
FILE_CAP = 600
FUNCTION_CAP = 80

# Modules and packages that may do IO, read clocks and draw randomness. Everything else is pure.
IO_MODULES = frozenset(
    {
        "scopes",
        "drive",
        "identity.files",
        "net.socket",
        "net.socket_options",
        "net.stream",
        "net.mux",
        "net.interfaces",
        "quic",  # the package's own public names only re-export the driver
        "quic.driver",
        "quic.interop",
        "ice.driver",
        "dht.service",
        "dht.files",
        "nat.probe",
        "nat.portmap",
        "nat.watch",
        "nat.stun_client",
        "nat.external",
        "nat.http",
        "nat.sends",
        "nat.gateway",
        "nat.pcp_client",
        "nat.upnp",
        "h3.client",
        "h3.datagram_flow",
        "h3.head_timer",
        "h3.server",
        "h3.session",
        "h3.exchange",
        "signaling.call",
        "signaling.channel",
        "signaling.client",
        "signaling.hub",
        "signaling.websocket",
        "punch",
        "host",
        "http",
        "debug",
        "cli",
        "testing",
        "__init__",
        "__main__",
    }
)
# Pure subtrees inside packages that are IO as a whole, and pure packages whose __init__ re-exports IO.
PURE_MODULES = frozenset({"host.targets"})
IMPURE_IMPORTS = frozenset(
    {
        "trio",
        "trio_websocket",
        "socket",
        "select",
        "selectors",
        "time",
        "random",
        "secrets",
        "asyncio",
        "httpx",
        "subprocess",
        "threading",
        "os",
    }
)

# Layers, lowest first; a module may import its own package and what is listed for it.
VALUES = {"errors", "cbor", "net.address", "net.datagram", "machine"}
BASE = VALUES | {"scopes", "drive", "identity"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "cbor": {"errors"},
    "net.address": set(),
    "net.datagram": {"net.address"},
    "machine": {"net.address", "net.datagram"},
    "scopes": {"errors"},
    "drive": VALUES | {"scopes"},
    "identity": {"errors", "cbor"},
    "wire": {"errors", "cbor", "identity", "net.address"},
    "net": BASE,
    "quic": BASE | {"net"},
    "dht": BASE | {"net", "wire"},
    "nat": BASE | {"net", "wire", "ice.stun"},
    "signaling": BASE | {"net", "wire"},
    "ice": BASE | {"net", "wire"},
    "punch": BASE | {"net", "wire", "dht", "nat", "signaling", "ice", "quic"},
    "host": BASE | {"net", "wire", "dht", "nat", "signaling", "ice", "quic", "punch"},
    "h3": BASE | {"net", "quic"},
    "http": BASE | {"net", "wire", "host.config", "host.connection", "host.pool", "host.web", "h3", "quic"},
    # What users hold is one object: `Host` has methods for HTTP too, which import what they need when they are called.
    # So http stands on parts of the host and never on `Host` itself, and there is no circle.
    "host.host": BASE | {"net", "wire", "dht", "nat", "punch", "quic", "http"},
    "debug": BASE | {"net", "wire", "host", "dht"},
    "cli": BASE | {"net", "wire", "host", "http", "debug", "dht", "nat", "quic", "signaling", "ice", "h3"},
    "__init__": BASE | {"net", "wire", "host", "quic", "dht", "nat", "signaling", "ice", "punch"},
    "__main__": {"cli"},
}


def module_name(path: Path) -> str:
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    return ".".join(parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def within(name: str, group: frozenset[str] | set[str]) -> bool:
    return any(name == entry or name.startswith(entry + ".") for entry in group)


def is_pure(name: str) -> bool:
    if within(name, PURE_MODULES):
        return True
    if name in ("quic", "dht", "h3", "signaling", "ice") or name.endswith("__init__"):
        return False
    return not within(name, IO_MODULES - {"quic"})


def imports(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Every imported module with whether it is only for type checking."""
    typing_only: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            typing_only.update(inner for child in node.body for inner in ast.walk(child))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node in typing_only
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports are absolute"
            yield node.module, node in typing_only
            if node.module.startswith("a2al_trio"):
                for alias in node.names:
                    if f"{node.module}.{alias.name}".removeprefix("a2al_trio.") in MODULES:
                        yield f"{node.module}.{alias.name}", node in typing_only


def own_layer(name: str) -> str:
    return name if name in MAY_IMPORT else name.split(".")[0]


@pytest.mark.parametrize("name", MODULES)
def test_a_pure_module_imports_no_io(name: str) -> None:
    if not is_pure(name):
        return
    for imported, typing_only in imports(TREES[name]):
        if name == "errors" and imported == "trio":
            continue  # two of its exceptions are also Trio's
        root = imported.split(".")[0]
        assert typing_only or root not in IMPURE_IMPORTS, f"pure module {name} imports {imported}"
        if root == "a2al_trio" and imported != "a2al_trio":
            target = imported.removeprefix("a2al_trio.")
            is_package = target in MODULES and MODULES[target].name == "__init__.py"
            assert typing_only or is_package or is_pure(target), f"pure {name} imports IO module {imported}"


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_downwards(name: str) -> None:
    layer = own_layer(name)
    if layer == "testing":
        return
    assert layer in MAY_IMPORT, f"{name}: a new layer needs its line in MAY_IMPORT"
    allowed = MAY_IMPORT[layer] | {layer, name.split(".")[0]}
    if layer in VALUES and "." in layer:
        allowed = MAY_IMPORT[layer] | {layer}
    for imported, _ in imports(TREES[name]):
        if not imported.startswith("a2al_trio."):
            assert imported != "a2al_trio" or name in ("cli", "__main__"), f"{name} imports the package root"
            continue
        target = imported.removeprefix("a2al_trio.")
        if target == "net" and "net.address" in allowed:
            continue  # `from a2al_trio.net import address`
        assert within(target, allowed), f"{name} imports {imported}, which is not below it"


@pytest.mark.parametrize("name", MODULES)
def test_sizes_stay_small(name: str) -> None:
    lines = len(MODULES[name].read_text().splitlines())
    assert lines <= FILE_CAP, f"{name} has {lines} lines; split it by subject"
    for node in ast.walk(TREES[name]):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                length -= (first.end_lineno or first.lineno) - first.lineno + 1
            cap = HOT_LOOPS.get(f"{name}.{node.name}", FUNCTION_CAP)
            assert length <= cap, f"{name}.{node.name} has {length} lines; the cap is {cap}"


# The hot loops, each one well-commented function that is long because calls are what costs.
HOT_LOOPS: dict[str, int] = {}


@pytest.mark.parametrize("name", MODULES)
def test_public_modules_say_what_they_export(name: str) -> None:
    if MODULES[name].name in ("__init__.py", "__main__.py") or name.split(".")[-1].startswith("_"):
        return
    exported = [
        node
        for node in TREES[name].body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        and "__all__" in ast.dump(node.targets[0] if isinstance(node, ast.Assign) else node.target)
    ]
    assert exported, f"{name} has no __all__"


# Modules that run other people's code, whose every error is an answer to one caller and no end of the server.
FOREIGN_CODE = frozenset({"http.asgi"})


@pytest.mark.parametrize("name", sorted(MODULES.keys() - FOREIGN_CODE))
def test_exceptions_are_never_swallowed_wholesale(name: str) -> None:
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.dump(node.type) if node.type else ""
            assert node.type is not None, f"{name}:{node.lineno} has a bare except"
            assert "id='Exception'" not in caught, f"{name}:{node.lineno} catches Exception"
