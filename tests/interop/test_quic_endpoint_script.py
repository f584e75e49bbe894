"""The endpoint script of the QUIC interop runner, both roles of it, and its command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import trio
from cryptography.hazmat.primitives import serialization
from cryptography.x509 import load_der_x509_certificate

from a2al_trio.errors import StreamReset
from a2al_trio.net.address import SocketAddress
from a2al_trio.quic.interop import SUPPORTED, Task, run_client, run_server
from tests.quic.tls_support import credentials


@pytest.fixture
def folders(tmp_path: Path) -> Task:
    """The runner's folders, with a certificate and some files to fetch."""
    www, downloads, certificates = tmp_path / "www", tmp_path / "downloads", tmp_path / "certs"
    traces = tmp_path / "qlog"
    for folder in (www, downloads, certificates, traces):
        folder.mkdir()
    mine = credentials("p256")
    leaf = load_der_x509_certificate(mine.chain[0])
    (certificates / "cert.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    (certificates / "priv.key").write_bytes(
        mine.private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    for number, size in enumerate((300_000, 1_000, 0, 50_000)):
        (www / f"file{number}").write_bytes(os.urandom(size))
    return Task(
        "",
        www=www,
        downloads=downloads,
        certificates=certificates,
        port=0,
        keylog=tmp_path / "keys.log",
        qlog_folder=traces,
    )


@pytest.mark.parametrize("test_case", sorted(SUPPORTED))
async def test_both_roles_with_each_other(test_case: str, folders: Task, no_leaks: None) -> None:
    task = attrs.evolve(folders, test_case=test_case)
    files = sorted(path.name for path in task.www.iterdir())
    async with trio.open_nursery() as nursery:
        address: SocketAddress = await nursery.start(run_server, task)
        urls = tuple(f"https://localhost:{address.port}/{name}" for name in files)
        await run_client(attrs.evolve(task, requests=urls))
        nursery.cancel_scope.cancel()
    for name in files:
        assert (task.downloads / name).read_bytes() == (task.www / name).read_bytes()
    assert task.keylog is not None
    assert "CLIENT_TRAFFIC_SECRET_0" in task.keylog.read_text()
    assert task.qlog_folder is not None
    roles = {path.stem.partition("_")[2] for path in task.qlog_folder.glob("*.sqlog") if path.stat().st_size}
    assert roles == {"client", "server"}


async def test_files_outside_the_folder_are_not_given(folders: Task) -> None:
    task = attrs.evolve(folders, test_case="transfer")
    async with trio.open_nursery() as nursery:
        address: SocketAddress = await nursery.start(run_server, task)
        url = f"https://localhost:{address.port}/../certs/priv.key"
        with pytest.raises(ExceptionGroup) as caught:
            await run_client(attrs.evolve(task, requests=(url,)))
        assert caught.group_contains(StreamReset)
        nursery.cancel_scope.cancel()


def test_unknown_test_cases_end_with_127() -> None:
    environment = {**os.environ, "ROLE": "client", "TESTCASE": "http3", "REQUESTS": ""}
    assert subprocess.run([sys.executable, "-m", "a2al_trio.quic.interop"], env=environment).returncode == 127
