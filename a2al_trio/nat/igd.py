"""What is said to UPnP Internet Gateway Devices: SSDP searches, device descriptions, SOAP (UPnP Device Architecture
1.1 §1.3, §2.3, §3; WANIPConnection:1 and :2).

Routers speak XML, and anything on the LAN may claim to be one: documents with a DTD are refused.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urljoin, urlsplit
from xml.sax.saxutils import escape

import attrs
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from a2al_trio.errors import DecodeError
from a2al_trio.nat.lease import PortMappingFailed

__all__ = [
    "SEARCH_TARGETS",
    "IgdDecodeError",
    "Service",
    "SoapFault",
    "decode_description",
    "decode_search_answer",
    "decode_soap_reply",
    "encode_search",
    "encode_soap",
]

_WAN_IP_2: Final = "urn:schemas-upnp-org:service:WANIPConnection:2"
_WAN_IP_1: Final = "urn:schemas-upnp-org:service:WANIPConnection:1"
_WAN_PPP_1: Final = "urn:schemas-upnp-org:service:WANPPPConnection:1"
SEARCH_TARGETS: Final = (_WAN_IP_2, _WAN_IP_1, _WAN_PPP_1)
"""Services that map ports, in order of preference."""
MAX_SERVICES = 4


class IgdDecodeError(DecodeError):
    """An answer that no UPnP device would give."""


class SoapFault(PortMappingFailed):
    """The router refuses an action; `code` is the UPnP error code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"the router refuses: UPnP error {code} {text}".rstrip())
        self.code = code


@attrs.frozen
class Service:
    """A service that maps ports, and where to send its actions."""

    service_type: str
    control_url: str


def encode_search(target: str, host: str) -> bytes:
    """The SSDP search for one service type, sent to the multicast address `host`."""
    lines = ("M-SEARCH * HTTP/1.1", f"HOST: {host}", 'MAN: "ssdp:discover"', "MX: 1", f"ST: {target}", "", "")
    return "\r\n".join(lines).encode()


def decode_search_answer(data: bytes, source: str) -> str:
    """The URL of the device description in an SSDP answer that came from the address `source`.

    It must be on the very device that answered, or anybody could have us fetch things anywhere. Raises
    IgdDecodeError.
    """
    try:
        status, *lines = data.decode("ascii", "replace").split("\r\n")
    except ValueError as error:
        raise IgdDecodeError(str(error)) from None
    words = status.split(maxsplit=2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or words[1] != "200":
        raise IgdDecodeError("not an answer to a search")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("st") not in SEARCH_TARGETS:
        raise IgdDecodeError("an answer to another search")
    location = headers.get("location", "")
    _check_url(location, source)
    return location


def _check_url(url: str, device: str) -> None:
    try:
        parts = urlsplit(url)
        host = ipaddress.ip_address(parts.hostname or "")
        port = parts.port or 80
    except ValueError:
        raise IgdDecodeError(f"{url[:200]!r} is no URL of a device") from None
    if parts.scheme != "http" or host != ipaddress.ip_address(device) or not 0 < port < 65536 or parts.username:
        raise IgdDecodeError(f"{url[:200]!r} is not on the device at {device}")


def decode_description(document: bytes, location: str) -> tuple[Service, ...]:
    """The services of a device that map ports, best first; raises IgdDecodeError if there are none."""
    device = urlsplit(location).hostname or ""
    base = location
    services: list[Service] = []
    element_texts = _texts(document)
    service_type = ""
    for name, text in element_texts:
        if name == "URLBase" and text:
            base = text
        elif name == "serviceType":
            service_type = text
        elif name == "controlURL" and service_type in SEARCH_TARGETS and len(services) < MAX_SERVICES:
            try:
                url = urljoin(base, text)
            except ValueError:
                raise IgdDecodeError("the control URL makes no sense") from None
            _check_url(url, device)
            services.append(Service(service_type, url))
    if not services:
        raise IgdDecodeError("the device maps no ports")
    return tuple(sorted(services, key=lambda service: SEARCH_TARGETS.index(service.service_type)))


def encode_soap(service_type: str, action: str, arguments: Mapping[str, str]) -> tuple[dict[str, str], bytes]:
    """HTTP headers and body of an action."""
    inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in arguments.items())
    body = (
        '<?xml version="1.0"?>\r\n'
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
        's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">'
        f'<s:Body><u:{action} xmlns:u="{service_type}">{inner}</u:{action}></s:Body></s:Envelope>\r\n'
    )
    headers = {"Content-Type": 'text/xml; charset="utf-8"', "SOAPAction": f'"{service_type}#{action}"'}
    return headers, body.encode()


def decode_soap_reply(document: bytes) -> dict[str, str]:
    """The values in the reply to an action; raises SoapFault if it is refused, IgdDecodeError for nonsense."""
    values = dict(_texts(document))
    if "errorCode" in values or "Fault" in values:
        code = values.get("errorCode", "")
        number = int(code) if code.isascii() and code.isdigit() and len(code) < 6 else 0
        raise SoapFault(number, values.get("errorDescription", values.get("faultstring", ""))[:200])
    return values


def _texts(document: bytes) -> Sequence[tuple[str, str]]:
    """All elements in document order: name without namespace, text without space around it."""
    try:
        root = fromstring(document, forbid_dtd=True)
    except (ParseError, DefusedXmlException, LookupError, ValueError) as error:
        raise IgdDecodeError(f"not XML as routers write it: {error}") from None
    return [(element.tag.rpartition("}")[2], (element.text or "").strip()) for element in root.iter()]
