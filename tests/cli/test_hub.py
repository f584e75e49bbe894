from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from a2al_trio.cli.commands import commands
from a2al_trio.cli.hub import load_tls, parse_listen
from a2al_trio.errors import ConfigurationError
from a2al_trio.signaling import Hub, serve_hub
from a2al_trio.signaling.frames import Frame, FrameType, decode_frame
from a2al_trio.signaling.websocket import open_hub_socket, send_frame
from tests.interop.coturn import make_certificate


def _take_interrupts() -> None:
    """A job in the background may have been started with interrupts ignored, and a child inherits that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def test_a_hub_serves_until_interrupted() -> None:
    command = [sys.executable, "-m", "a2al_trio", "hub", "--listen", "127.0.0.1:0"]
    with trio.fail_after(60):
        process = await trio.lowlevel.open_process(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=_take_interrupts
        )
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            url = (await process.stdout.receive_some()).decode().strip()
            async with open_hub_socket(f"{url}/signal") as hub:
                await send_frame(hub, Frame(type=FrameType.REGISTER, agent="T"))
                message = await hub.get_message()
                assert isinstance(message, bytes)
                assert decode_frame(message).type == FrameType.ACKNOWLEDGE
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 130
            assert b"agents    0" in await process.stderr.receive_some()
        finally:
            process.kill()
            await process.stdout.aclose()
            await process.stderr.aclose()


async def test_a_hub_over_tls(tmp_path: Path, no_leaks: None) -> None:
    certificate, key = make_certificate(tmp_path)

    async def dial(host: str, port: int, tls: bool) -> trio.abc.Stream:
        assert tls
        context = ssl.create_default_context(cafile=certificate)
        return trio.SSLStream(
            await trio.open_tcp_stream("127.0.0.1", port), context, server_hostname=host, https_compatible=True
        )

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            serve = partial(serve_hub, "127.0.0.1", 0, hub=Hub(), tls=load_tls(certificate, key))
            (address,) = await nursery.start(serve)
            async with open_hub_socket(f"wss://localhost:{address.port}/signal", dial=dial) as hub:
                await send_frame(hub, Frame(type=FrameType.REGISTER, agent="T"))
                assert await hub.get_message()
            nursery.cancel_scope.cancel()


def test_where_to_listen() -> None:
    assert parse_listen(":4121") == (None, 4121)
    assert parse_listen("4121") == (None, 4121)
    assert parse_listen("127.0.0.1:0") == ("127.0.0.1", 0)
    assert parse_listen("[::1]:5") == ("::1", 5)
    for text in ("", "host", "::1:5", ":70000", ":x"):
        with pytest.raises(ConfigurationError, match="is not HOST:PORT"):
            parse_listen(text)


def test_mistakes_are_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for arguments, problem in (
            (["--listen", f"127.0.0.1:{port}"], "choose another address or port"),
            (["--certificate-key", "x"], "needs --certificate"),
            (["--certificate", str(tmp_path / "none.pem")], "cannot use the certificate"),
        ):
            result = CliRunner().invoke(commands, ["hub", *arguments])
            assert result.exit_code == 2
            assert problem in " ".join(result.output.split())
