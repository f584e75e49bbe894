"""Host settings from a TOML file and from `A2AL_*` environment variables.

The names of the reference daemon are understood beside those of `HostConfig`, so that its `config.toml` can be
shared (spec 04 §6.3, spec 07). The environment wins over the file.
"""

from __future__ import annotations

import difflib
import logging
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import attrs

from a2al_trio.errors import ConfigurationError
from a2al_trio.host.config import HostConfig
from a2al_trio.ice.servers import HmacCredentials, RestCredentials, StaticCredentials, TurnCredentials, TurnServer

__all__ = ["ENVIRONMENT_PREFIX", "decode_config", "load_config"]

logger = logging.getLogger(__name__)

ENVIRONMENT_PREFIX = "A2AL_"
COMMON_VARIABLES = {"SSLKEYLOGFILE": "keylog", "QLOGDIR": "qlog_dir"}
"""Variables that many programs understand."""
OWN_PREFIX = "A2AL_TRIO_"
"""Variables of the command line, which are not host settings."""

Fields: TypeAlias = dict[str, object]
"""Arguments of `HostConfig`."""


class _Wrong(Exception):
    """A value does not fit its setting; says what would."""


def load_config(path: Path | None = None, environ: Mapping[str, str] | None = None) -> HostConfig:
    """Read settings from a file, if one is given, and from the environment (such as `os.environ`), if given.

    Raises ConfigurationError that names the file and the setting, and says what would do.
    """
    document: Mapping[str, object] = {}
    if path is not None:
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(f"cannot read the settings in {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path} is not valid TOML: {error}") from None
    return decode_config(document, environ or {}, source=str(path))


def decode_config(document: Mapping[str, object], environ: Mapping[str, str], *, source: str) -> HostConfig:
    """Make settings of a parsed file and the environment; `source` names the file in errors."""
    fields: Fields = {}
    for name, value in document.items():
        _take(fields, name, value, where=source)
    for variable, name in COMMON_VARIABLES.items():
        if environ.get(variable):
            _take(fields, name, environ[variable], where=f"environment ({variable})")
    for variable, text in sorted(environ.items()):
        if variable.startswith(ENVIRONMENT_PREFIX) and not variable.startswith(OWN_PREFIX):
            _take(fields, variable.removeprefix(ENVIRONMENT_PREFIX).lower(), text, where=f"environment ({variable})")
    # Lists win over the single settings of the same meaning, whatever the order.
    single = fields.pop("ice_signal_url", "")
    if single and not fields.get("signal_urls"):
        fields["signal_urls"] = (single,)
    old = fields.pop("ice_turn_urls", ())
    fields["turn_servers"] = (*_servers(old), *_servers(fields.get("turn_servers", ())))
    return attrs.evolve(HostConfig(), **fields)  # type: ignore[arg-type]  # every value was read for its field


def _servers(value: object) -> tuple[TurnServer, ...]:
    return value if isinstance(value, tuple) else ()


def _take(fields: Fields, name: str, value: object, *, where: str) -> None:
    if name in ELSEWHERE:
        logger.info("%s: %s is a setting of the reference daemon that a host has no use for", where, name)
        return
    setting = SETTINGS.get(name)
    if setting is None:
        close = difflib.get_close_matches(name, SETTINGS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(SETTINGS))}"
        raise ConfigurationError(f"{where}: unknown setting {name!r}; {hint}")
    field, read = setting
    try:
        fields[field] = read(value)
    except _Wrong as wrong:
        raise ConfigurationError(f"{where}: {name} must be {wrong}") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _Wrong(f"a text, not {value!r}")
    return value.strip()


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _Wrong(f'a list of texts such as ["one", "two"], not {value!r}')
    return tuple(item.strip() for item in value)


def _number(value: object) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _Wrong(f"a whole number, not {value!r}")
    return value


def _flag(value: object) -> bool:
    if isinstance(value, str):
        value = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}.get(value.lower())
    if not isinstance(value, bool):
        raise _Wrong("true or false")
    return value


def _negated(value: object) -> bool:
    return not _flag(value)


def _path(value: object) -> Path | None:
    text = _text(value)
    return Path(text).expanduser() if text else None


def _turn_urls(value: object) -> tuple[TurnServer, ...]:
    return tuple(_checked(TurnServer(url)) for url in _texts(value))


def _turn_tables(value: object) -> tuple[TurnServer, ...]:
    if isinstance(value, str) or not isinstance(value, list):
        raise _Wrong("a list of tables, [[turn_servers]], each with a url; they cannot stand in the environment")
    return tuple(_turn_server(table) for table in value)


def _turn_server(table: object) -> TurnServer:
    names = ("url", "credential_type", "username", "credential", "credential_url")
    if not isinstance(table, dict) or not set(table) <= set(names) or not table.get("url"):
        raise _Wrong(f"tables with a url and perhaps {', '.join(names[1:])}")
    kind = str(table.get("credential_type", "static")).lower().replace("_", "")
    url, username, credential, service = (_text(table.get(name, "")) for name in names if name != "credential_type")
    if kind in ("0", "static"):
        return _checked(TurnServer(url, StaticCredentials(username, credential) if username else None))
    credentials: TurnCredentials
    if kind in ("1", "hmac"):
        credentials = HmacCredentials(username, credential)
    elif kind in ("2", "rest", "restapi"):
        credentials = RestCredentials(service, credential)
    else:
        raise _Wrong("tables whose credential_type is static, hmac or restapi (0, 1 or 2)")
    return _checked(TurnServer(url, credentials))


def _checked(server: TurnServer) -> TurnServer:
    try:
        _ = server.address
    except ConfigurationError as error:
        raise _Wrong(f"servers that can be used: {error}") from None
    return server


Setting: TypeAlias = tuple[str, Callable[[object], object]]
SETTINGS: dict[str, Setting] = {
    # The reference daemon's names.
    "listen_addr": ("listen", _text),
    "quic_listen_addr": ("quic_listen", _text),
    "ice_signal_url": ("ice_signal_url", _text),
    "ice_signal_urls": ("signal_urls", _texts),
    "ice_stun_urls": ("stun_servers", _texts),
    "ice_turn_urls": ("ice_turn_urls", _turn_urls),
    "disable_upnp": ("port_mapping", _negated),
    # Names of both.
    "bootstrap": ("bootstrap", _texts),
    "fallback_host": ("fallback_host", _text),
    "min_observed_peers": ("min_observed_peers", _number),
    "turn_servers": ("turn_servers", _turn_tables),
    # Ours.
    "listen": ("listen", _text),
    "quic_listen": ("quic_listen", _text),
    "data_dir": ("data_dir", _path),
    "signal_urls": ("signal_urls", _texts),
    "stun_servers": ("stun_servers", _texts),
    "relay_only": ("relay_only", _flag),
    "ip_echo_urls": ("ip_echo_urls", _texts),
    "port_mapping": ("port_mapping", _flag),
    "endpoint_ttl": ("endpoint_ttl", _number),
    "clock_tolerance": ("clock_tolerance", _number),
    "max_connections": ("max_connections", _number),
    "keylog": ("keylog", _path),
    "qlog_dir": ("qlog_dir", _path),
    "max_connections_per_caller": ("max_connections_per_caller", _number),
    "max_streams_per_caller": ("max_streams_per_caller", _number),
    "max_rate_per_caller": ("max_rate_per_caller", _number),
}
ELSEWHERE = frozenset({"api_addr", "api_token", "log_level", "signal_listen_addr", "beacon_mode", "ice_publish_turns"})
