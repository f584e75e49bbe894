"""Looking into connections with other tools: TLS secrets for Wireshark, qlog traces for qvis.

Files are opened for every line, so that nothing is lost in a crash and nothing is left open; traces are for looking
at a problem, not for every day.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import attrs

from a2al_trio.errors import ConfigurationError
from a2al_trio.host.config import HostConfig
from a2al_trio.net.address import SocketAddress
from a2al_trio.quic import QuicConfig
from a2al_trio.quic.qlog import QlogWriter

__all__ = ["key_log", "traced_quic"]

logger = logging.getLogger(__name__)


def key_log(config: HostConfig) -> Callable[[str], None] | None:
    """Where TLS secrets go, a line at a time, or None; raises ConfigurationError if the file cannot be written."""
    path = config.keylog
    if path is None:
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _append(path, "")
    except OSError as error:
        raise ConfigurationError(f"keylog: cannot write {path}: {error.strerror}") from error
    logger.warning("TLS secrets go to %s: whoever reads it can read our connections", path)

    def write(line: str) -> None:
        _try_append(path, line + "\n")

    return write


def traced_quic(config: HostConfig) -> QuicConfig:
    """The QUIC settings of the host, with a qlog trace of every connection if `qlog_dir` is set.

    Raises ConfigurationError if the directory cannot be made.
    """
    directory = config.qlog_dir
    if directory is None:
        return config.quic
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"qlog_dir: cannot make {directory}: {error.strerror}") from error

    def observe(cid: bytes, is_client: bool, peer: SocketAddress) -> QlogWriter:
        path = directory / f"{cid.hex()}_{'client' if is_client else 'server'}.sqlog"
        return QlogWriter(partial(_try_append, path), cid, is_client, peer)

    return attrs.evolve(config.quic, observe=observe)


def _try_append(path: Path, text: str) -> None:
    """A full disk ends the trace, not the host."""
    try:
        _append(path, text)
    except OSError as error:
        logger.debug("cannot trace to %s: %s", path, error)


def _append(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "a") as file:
        file.write(text)
