"""Key logs and qlog traces of a host's connections."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio

from a2al_trio.errors import ConfigurationError
from a2al_trio.host import HostConfig
from a2al_trio.host.settings import load_config
from a2al_trio.host.traces import key_log, traced_quic
from a2al_trio.testing import open_simnet
from tests.host.world import identity, open_sim_host

ALICE, BOB = identity(2), identity(3)


async def test_a_connection_leaves_its_secrets_and_a_trace(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    config = HostConfig(keylog=tmp_path / "logs" / "keys", qlog_dir=tmp_path / "qlog")
    async with (
        open_simnet(seed=1) as net,
        open_sim_host(net.host("alice"), ALICE) as alice,
        open_sim_host(net.host("bob"), BOB, seeds=(alice,), config=config) as bob,
        bob.connect(ALICE.address, at=alice.quic_address),
    ):
        pass
    keys = (tmp_path / "logs" / "keys").read_text()
    assert {line.split()[0] for line in keys.splitlines()} >= {"CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"}
    assert (tmp_path / "logs" / "keys").stat().st_mode & 0o777 == 0o600
    [trace] = (tmp_path / "qlog").iterdir()
    assert trace.name.endswith("_client.sqlog")
    events = [json.loads(text) for text in trace.read_text().split("\x1e")[1:]]
    assert events[0]["trace"]["vantage_point"] == {"type": "client"}
    assert events[-1]["name"].startswith("quic:")
    assert any(event.get("name") == "quic:connection_closed" for event in events)


def test_nothing_is_traced_unless_asked_for() -> None:
    assert key_log(HostConfig()) is None
    assert traced_quic(HostConfig()).observe is None


def test_places_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="keylog: cannot write"):
        key_log(HostConfig(keylog=tmp_path / "file" / "keys"))
    with pytest.raises(ConfigurationError, match="qlog_dir: cannot make"):
        traced_quic(HostConfig(qlog_dir=tmp_path / "file"))


def test_the_variables_that_other_programs_have(tmp_path: Path) -> None:
    config = load_config(None, {"SSLKEYLOGFILE": str(tmp_path / "keys"), "QLOGDIR": str(tmp_path)})
    assert (config.keylog, config.qlog_dir) == (tmp_path / "keys", tmp_path)
    assert load_config(None, {"SSLKEYLOGFILE": ""}) == HostConfig()
