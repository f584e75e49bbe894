"""The host: agents of this process, publishing, resolving, connecting and accepting."""

from a2al_trio.host.access import AccessByAgent, AccessList, AccessRule
from a2al_trio.host.agents_file import LoadedAgents, load_agents, store_agent
from a2al_trio.host.assembly import open_host, open_host_over
from a2al_trio.host.config import ALPN, CONNECT_STAGGER, HTTP3, ICE_STAGGER, HostConfig
from a2al_trio.host.connection import AgentConnection
from a2al_trio.host.host import Host
from a2al_trio.host.mailbox import Mailbox, MailIterator, SentMail
from a2al_trio.host.pool import BackingOff, ConnectionPool
from a2al_trio.host.records import EndpointRecord, ProfileRecord, Records
from a2al_trio.host.settings import load_config
from a2al_trio.host.topics import Registration, TopicEntry, Topics
from a2al_trio.host.web import WebAgent, WebConnection

__all__ = [
    "ALPN",
    "CONNECT_STAGGER",
    "HTTP3",
    "ICE_STAGGER",
    "AccessByAgent",
    "AccessList",
    "AccessRule",
    "AgentConnection",
    "BackingOff",
    "ConnectionPool",
    "EndpointRecord",
    "Host",
    "HostConfig",
    "LoadedAgents",
    "MailIterator",
    "Mailbox",
    "ProfileRecord",
    "Records",
    "Registration",
    "SentMail",
    "TopicEntry",
    "Topics",
    "WebAgent",
    "WebConnection",
    "load_agents",
    "load_config",
    "open_host",
    "open_host_over",
    "store_agent",
]
