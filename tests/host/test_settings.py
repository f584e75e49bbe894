"""Settings from TOML and the environment: the reference's names, ours, and what is said about mistakes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import attrs
import pytest

from a2al_trio.errors import ConfigurationError
from a2al_trio.host import HostConfig, open_host
from a2al_trio.host.settings import SETTINGS, decode_config, load_config
from a2al_trio.ice.servers import HmacCredentials, RestCredentials, StaticCredentials
from a2al_trio.identity import Identity

REFERENCE_FILE = """
listen_addr = ":4121"
api_addr = "127.0.0.1:2121"
log_level = "debug"
disable_upnp = true
bootstrap = ["192.0.2.1:4121", "node.example:4121"]
ice_stun_urls = ["stun:192.0.2.9:3478"]
ice_signal_url = "ws://192.0.2.1:4121"
fallback_host = " host.example "
min_observed_peers = 2

[[turn_servers]]
url = "turn:192.0.2.9:3478?transport=udp"
username = "lab"
credential = "secret"

[[turn_servers]]
url = "turn:192.0.2.9:3478?transport=tcp"
credential_type = "hmac"
username = "lab"
credential = "secret"

[[turn_servers]]
url = "turn:192.0.2.9:3478"
credential_type = 2
credential = "Bearer token"
credential_url = "https://turn.example/"
"""


def test_a_file_of_the_reference_daemon(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "config.toml"
    file.write_text(REFERENCE_FILE)
    with caplog.at_level(logging.INFO):
        config = load_config(file)
    assert config.listen == ":4121"
    assert config.bootstrap == ("192.0.2.1:4121", "node.example:4121")
    assert (config.port_mapping, config.min_observed_peers, config.fallback_host) == (False, 2, "host.example")
    assert config.stun_servers == ("stun:192.0.2.9:3478",)
    assert config.signal_urls == ("ws://192.0.2.1:4121",)
    assert [server.credentials for server in config.turn_servers] == [
        StaticCredentials("lab", "secret"),
        HmacCredentials("lab", "secret"),
        RestCredentials("https://turn.example/", "Bearer token"),
    ]
    assert "api_addr" in caplog.text
    assert "secret" not in caplog.text + repr(config)


def test_nothing_given_is_the_default() -> None:
    assert load_config() == HostConfig()
    assert load_config(None, {"PATH": "/bin", "A2AL_TRIO_PASSPHRASE": "x"}) == HostConfig()


def test_the_environment_wins(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('bootstrap = ["192.0.2.1:4121"]\nmin_observed_peers = 2\nrelay_only = true\n')
    environ = {
        "A2AL_BOOTSTRAP": "192.0.2.2:1, 192.0.2.3:2",
        "A2AL_MIN_OBSERVED_PEERS": "5",
        "A2AL_DISABLE_UPNP": "false",
        "A2AL_DATA_DIR": "/var/lib/a2al",
    }
    config = load_config(file, environ)
    assert config.bootstrap == ("192.0.2.2:1", "192.0.2.3:2")
    assert (config.min_observed_peers, config.port_mapping, config.relay_only) == (5, True, True)
    assert config.data_dir == Path("/var/lib/a2al")


def test_a_list_of_hubs_wins_over_the_single_one() -> None:
    document = {"ice_signal_url": "ws://one:1", "ice_signal_urls": ["ws://two:2"]}
    assert decode_config(document, {}, source="x").signal_urls == ("ws://two:2",)


def test_relays_with_credentials_in_their_url_come_first() -> None:
    document = {
        "turn_servers": [{"url": "turn:192.0.2.9", "username": "a", "credential": "b"}],
        "ice_turn_urls": ["turn:u:p@192.0.2.8"],
    }
    first, second = decode_config(document, {}, source="x").turn_servers
    assert (first.address.host, second.address.host) == ("192.0.2.8", "192.0.2.9")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"listen_adr": ":1"}, "unknown setting 'listen_adr'; did you mean listen_addr"),
        ({"zzz": 1}, "unknown setting 'zzz'; there are bootstrap, "),
        ({"min_observed_peers": "many"}, "min_observed_peers must be a whole number, not 'many'"),
        ({"min_observed_peers": True}, "a whole number"),
        ({"relay_only": "perhaps"}, "relay_only must be true or false"),
        ({"bootstrap": [1]}, "a list of texts"),
        ({"bootstrap": ["nonsense"]}, "'nonsense' is not host:port"),
        ({"listen_addr": 4121}, "listen_addr must be a text"),
        ({"listen_addr": "somewhere"}, "listen: .* write IP:port"),
        ({"turn_servers": "turn:x"}, "cannot stand in the environment"),
        ({"turn_servers": [{"username": "x"}]}, "tables with a url"),
        ({"turn_servers": [{"url": "turn:x", "colour": "red"}]}, "tables with a url"),
        ({"turn_servers": [{"url": "turn:x"}]}, "needs credentials"),
        ({"turn_servers": [{"url": "turn:x", "credential_type": "magic"}]}, "static, hmac or restapi"),
        ({"ice_turn_urls": ["http://x"]}, "is no STUN or TURN URI"),
    ],
)
def test_mistakes_name_the_setting_and_the_fix(document: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        decode_config(document, {}, source="config.toml")


def test_mistakes_name_where_they_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"environment \(A2AL_RELAY_ONLY\): relay_only"):
        load_config(None, {"A2AL_RELAY_ONLY": "maybe"})
    with pytest.raises(ConfigurationError, match=r"cannot read the settings in .*none.toml: No such file"):
        load_config(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("listen = \n")
    with pytest.raises(ConfigurationError, match=r"broken.toml is not valid TOML"):
        load_config(broken)


def test_every_simple_setting_can_be_given() -> None:
    objects = {"quic", "dht"}
    assert {field.name for field in attrs.fields(HostConfig)} - objects <= {field for field, _ in SETTINGS.values()}


@pytest.mark.parametrize(
    "host", ["not a name", "http://example.org", "example.org:4121", "a..b", "1.2.3.4.5", "-a", "."]
)
def test_a_fallback_host_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"fallback_host: .* write an IP address or a name"):
        HostConfig(fallback_host=host)


@pytest.mark.parametrize("host", ["", "example.org", "example.org.", "localhost", "my_box", "192.0.2.1", "2001:db8::1"])
def test_a_fallback_host_may_be_a_name_or_an_address(host: str) -> None:
    assert HostConfig(fallback_host=host).fallback_host == host


def test_a_seed_without_a_port_is_told_what_to_write() -> None:
    with pytest.raises(ConfigurationError, match="'nosuchhost' is not host:port; write a name or an IP, such as"):
        HostConfig(bootstrap=("nosuchhost",))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"signal_urls": ["http://hub.example"]}, "signal_urls: .* its scheme must be ws or wss"),
        ({"signal_urls": ["nonsense"]}, "signal_urls: .* given as ws://host:port"),
        ({"signal_urls": "ws://hub.example:1"}, r"write \['ws://hub.example:1'\]"),
        ({"stun_servers": ["http://x"]}, "stun_servers: .* such as stun:host:3478"),
        ({"ip_echo_urls": ["example.org"]}, "ip_echo_urls: .* write https://host/path"),
        ({"min_observed_peers": -1}, "min_observed_peers must be at least 0, not -1"),
        ({"max_connections": 0}, "max_connections must be at least 1, not 0"),
        ({"endpoint_ttl": "3600"}, "endpoint_ttl must be a whole number, not '3600'"),
        ({"endpoint_ttl": 604801}, "endpoint_ttl must be 1 to 604800 seconds"),
        ({"clock_tolerance": 1.5}, "clock_tolerance must be a whole number"),
        ({"listen": "0.0.0.0:1", "quic_listen": "0.0.0.0:1"}, "quic_listen: .* leave it empty"),
        ({"quic_listen": "here"}, "quic_listen: .* write IP:port"),
    ],
)
def test_what_python_gives_is_checked_as_well(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        HostConfig(**wrong)


def test_lists_and_path_texts_are_taken() -> None:
    config = HostConfig(bootstrap=["192.0.2.1:4121"], data_dir="/var/lib/a2al")
    assert (config.bootstrap, config.data_dir) == (("192.0.2.1:4121",), Path("/var/lib/a2al"))


async def test_a_node_to_join_through_is_one_of_a_list() -> None:
    with pytest.raises(ConfigurationError, match=r"a list of texts belongs .* write \['192.0.2.1:4121'\]"):
        async with open_host(Identity.from_seed(bytes(32)), bootstrap="192.0.2.1:4121"):
            pass
