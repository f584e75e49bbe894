"""The registry of a node's agents on disk, in the reference daemon's format (spec 01 §4.5).

These functions block for a few milliseconds; call them before `trio.run` or in a thread.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from a2al_trio.errors import ConfigurationError
from a2al_trio.identity import Identity, KeyFileError
from a2al_trio.identity.agents_file import AgentEntry, AgentsFile, decode_agents, encode_agents
from a2al_trio.identity.files import read_private_file, write_private_file

__all__ = ["LoadedAgents", "load_agents", "store_agent"]


@attrs.frozen
class LoadedAgents:
    """The agents of a file that peers would accept now, and the reason for every other entry."""

    identities: tuple[Identity, ...]
    skipped: tuple[str, ...]


def load_agents(path: Path, *, now: float) -> LoadedAgents:
    """Read the agents to register on a host; `now` is wall time in seconds, against which proofs are held.

    Raises FileNotFoundError, and KeyFileError for a file that others may read or that is damaged.
    """
    file = _read(path)
    identities, skipped = [], list(file.skipped)
    for entry in file.agents:
        try:
            identity = Identity(entry.address, entry.key, entry.delegation or None)
            identity.check(now=now)
        except ConfigurationError as error:
            skipped.append(f"{entry.address}: {error}")
        else:
            identities.append(identity)
    return LoadedAgents(tuple(identities), tuple(skipped))


def store_agent(path: Path, identity: Identity) -> None:
    """Add an agent to the file, or give the one that stands there its new key and proof; makes a missing file.

    What the file says about the agent's services, and the other agents, stay as they are. Raises KeyFileError if
    the file is there and cannot be used, or holds entries that cannot be read and would be lost.
    """
    try:
        file = _read(path)
    except FileNotFoundError:
        file = AgentsFile(())
    if file.skipped:
        raise KeyFileError(f"{path} has entries that cannot be read; mend or remove them first: {file.skipped[0]}")
    entries = {entry.address: entry for entry in file.agents}
    delegation = identity.delegation or b""
    known = entries.get(identity.address, AgentEntry(identity.address, identity.key))
    entries[identity.address] = attrs.evolve(known, key=identity.key, delegation=delegation)
    write_private_file(path, encode_agents(entries.values()).encode())


def _read(path: Path) -> AgentsFile:
    try:
        return decode_agents(read_private_file(path).decode())
    except UnicodeDecodeError:
        raise KeyFileError(f"{path} is not a text file; restore it from a backup") from None
    except KeyFileError as error:
        raise KeyFileError(f"{path}: {error}") from None
