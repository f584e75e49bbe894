"""What UPnP routers say: answers to searches, descriptions, SOAP; from friends and from foes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from a2al_trio.nat.igd import (
    SEARCH_TARGETS,
    IgdDecodeError,
    Service,
    SoapFault,
    decode_description,
    decode_search_answer,
    decode_soap_reply,
    encode_search,
    encode_soap,
)
from tests.nat.gateways import FakeIgd

LOCATION = "http://192.168.1.1:5000/root.xml"


def search_answer(location: str = LOCATION, target: str = SEARCH_TARGETS[0], status: str = "HTTP/1.1 200 OK") -> bytes:
    return f"{status}\r\nCACHE-CONTROL: max-age=60\r\nst: {target}\r\nLocation: {location}\r\n\r\n".encode()


def test_searches_are_answered_with_a_location() -> None:
    assert encode_search("urn:x", "239.255.255.250:1900").startswith(b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:")
    assert decode_search_answer(search_answer(), "192.168.1.1") == LOCATION


@pytest.mark.parametrize(
    "answer",
    [
        search_answer(location="http://192.168.1.2:5000/"),
        search_answer(location="http://10.0.0.1/"),
        search_answer(location="https://192.168.1.1/"),
        search_answer(location="file:///etc/passwd"),
        search_answer(location="http://user@192.168.1.1/"),
        search_answer(location="http://router/"),
        search_answer(location="http://192.168.1.1:99999/"),
        search_answer(location="http://[/"),
        search_answer(location=""),
        search_answer(target="upnp:rootdevice"),
        search_answer(status="HTTP/1.1 404 Not Found"),
        search_answer(status="NOTIFY * HTTP/1.1"),
        b"",
    ],
)
def test_answers_that_lead_elsewhere_are_refused(answer: bytes) -> None:
    with pytest.raises(IgdDecodeError):
        decode_search_answer(answer, "192.168.1.1")


def test_the_best_service_comes_first() -> None:
    document = b"<root><URLBase>http://192.168.1.1:49000/</URLBase>"
    for number, target in enumerate(reversed(SEARCH_TARGETS)):
        document += f"<service><serviceType>{target}</serviceType><controlURL>c{number}</controlURL></service>".encode()
    services = decode_description(document + b"</root>", LOCATION)
    assert services == tuple(
        Service(target, f"http://192.168.1.1:49000/c{2 - number}") for number, target in enumerate(SEARCH_TARGETS)
    )


def test_relative_control_urls_belong_to_the_location() -> None:
    document = FakeIgd().get()[1]
    assert decode_description(document, LOCATION) == (Service(SEARCH_TARGETS[1], "http://192.168.1.1:5000/control"),)


BILLION_LAUGHS = (
    b'<!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><root><controlURL>&b;</controlURL></root>'
)
EXTERNAL_ENTITY = b'<!DOCTYPE l [<!ENTITY a SYSTEM "file:///etc/passwd">]><root>&a;</root>'


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<root/>",
        b"<root>",
        b"\xff\xfe",
        b'<?xml version="1.0" encoding="nonsense"?><root/>',
        BILLION_LAUGHS,
        EXTERNAL_ENTITY,
        b"<a>" * 50_000,
        b"<a>" * 50_000 + b"</a>" * 50_000,
        FakeIgd().get()[1].replace(b"/control", b"http://evil.example/"),
        FakeIgd().get()[1].replace(b"/control", b"http://[/"),
    ],
)
def test_documents_that_are_no_description(document: bytes) -> None:
    with pytest.raises(IgdDecodeError):
        decode_description(document, LOCATION)


def test_soap_round_trip() -> None:
    headers, body = encode_soap(SEARCH_TARGETS[0], "AddPortMapping", {"NewRemoteHost": "", "Text": "<&>"})
    assert headers["SOAPAction"] == f'"{SEARCH_TARGETS[0]}#AddPortMapping"'
    assert decode_soap_reply(body)["Text"] == "<&>"


def test_faults_are_told() -> None:
    fault = FakeIgd(faults={"X": 718}).post("X", encode_soap(SEARCH_TARGETS[0], "X", {})[1])[1]
    with pytest.raises(SoapFault, match="718 No") as caught:
        decode_soap_reply(fault)
    assert caught.value.code == 718
    with pytest.raises(SoapFault):
        decode_soap_reply(b"<e><Fault><faultstring>" + b"x" * 9999 + b"</faultstring></Fault></e>")
    with pytest.raises(SoapFault):
        decode_soap_reply("<e><errorCode>²</errorCode></e>".encode())


TAGS = ("a", "serviceType", "controlURL", "errorCode")
PIECES = [f"<{tag}>" for tag in TAGS] + [f"</{tag}>" for tag in TAGS]
PIECES += [SEARCH_TARGETS[0], "http://192.168.1.1/", "&amp;", "7", "\udcff"]
xml_like = st.lists(st.sampled_from(PIECES)).map(lambda pieces: "".join(pieces).encode(errors="surrogateescape"))


@given(st.binary(max_size=200) | xml_like)
@example(b"<?xml version='1.0' encoding='utf-7'?><a/>")
@example(b"<?xml version='1.0' encoding='idna'?><a/>")
@example(b"<a>\0</a>")
def test_any_bytes_decode_or_do_not(data: bytes) -> None:
    with contextlib.suppress(IgdDecodeError):
        decode_search_answer(data, "192.168.1.1")
    with contextlib.suppress(IgdDecodeError):
        decode_description(data, LOCATION)
    with contextlib.suppress(IgdDecodeError, SoapFault):
        decode_soap_reply(data)
