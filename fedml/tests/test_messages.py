"""The messages against the golden ones that the TypeScript side is held against too."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import REPOSITORY

from fedml_fedfab import messages
from fedml_fedfab.messages import MessageTypes, comes_from_server, decode_object, decode_start

TOPICS = REPOSITORY / "topics"
GOLDEN = json.loads((TOPICS / "fixtures" / "messages.json").read_text())["messages"]
MALFORMED = json.loads((TOPICS / "fixtures" / "malformed.json").read_text())["messages"]
TYPES = MessageTypes()


def golden(name: str) -> dict[str, Any]:
    return next(message for message in GOLDEN if message["name"] == name)


def test_the_package_carries_the_one_table() -> None:
    ours = (REPOSITORY / "fedml" / "src" / "fedml_fedfab" / "messages.json").read_bytes()
    assert ours == (TOPICS / "messages.json").read_bytes(), "copy topics/messages.json here"


def test_numbers() -> None:
    assert (TYPES.ready, TYPES.start, TYPES.send) == (9, 10, 11)
    assert (messages.INIT, messages.SYNC, messages.FINISH, messages.HIGHEST_OF_FEDML) == (1, 2, 7, 8)


@pytest.mark.parametrize("name", ["READY", "READY without its optional fields"])
def test_ready(name: str) -> None:
    message = golden(name)
    decoded = message["decoded"]
    fields = messages.encode_ready(
        TYPES,
        client=decoded["client"],
        server=decoded["server"],
        round_idx=decoded.get("roundIdx"),
        num_samples=decoded.get("numSamples"),
    )
    assert fields == message["payload"]
    assert messages.client_topic(decoded["run"], decoded["client"]) == message["topic"]


@pytest.mark.parametrize("name", ["SEND", "SEND without its optional fields"])
def test_send(name: str) -> None:
    message = golden(name)
    decoded = message["decoded"]
    fields = messages.encode_send(
        TYPES,
        client=decoded["client"],
        server=decoded["server"],
        round_idx=decoded.get("roundIdx"),
        digest=decoded.get("digest"),
    )
    assert fields == message["payload"]


def test_start() -> None:
    message = golden("START")
    start = decode_start(message["payload"])
    assert start is not None
    decoded = message["decoded"]
    assert (start.round_id, start.round_idx, start.lease_s, start.upload_url, start.upload_token) == (
        decoded["roundId"],
        decoded["roundIdx"],
        decoded["leaseS"],
        decoded["uploadUrl"],
        decoded["uploadToken"],
    )
    assert messages.server_topic(decoded["run"], decoded["server"], decoded["client"]) == message["topic"]


def test_a_start_shows_no_token() -> None:
    start = decode_start(golden("START")["payload"])
    assert start is not None
    assert start.upload_token not in f"{start!r} {start}"


@pytest.mark.parametrize(
    "change",
    [
        {"round_id": None},
        {"round_id": ""},
        {"round_idx": -1},
        {"round_idx": True},
        {"lease_s": "60"},
        {"lease_s": 0},
        {"upload_url": "file:///etc/passwd"},
        {"upload_token": 7},
    ],
)
def test_a_start_that_lacks_something_is_none(change: dict[str, Any]) -> None:
    assert decode_start({**golden("START")["payload"], **change}) is None


# Last wills have no type; they are for the coordinator.
@pytest.mark.parametrize(
    "message",
    [message for message in GOLDEN if "last_will" not in message["topic"]],
    ids=lambda message: message["name"],
)
def test_every_golden_message_can_be_read(message: dict[str, Any]) -> None:
    fields = decode_object(json.dumps(message["payload"]).encode())
    assert fields is not None
    assert all(isinstance(fields[name], int) for name in ("msg_type", "sender", "receiver"))


@pytest.mark.parametrize("message", MALFORMED, ids=lambda message: message["name"])
def test_malformed_messages_break_nothing(message: dict[str, Any]) -> None:
    payload = bytes.fromhex(message["hex"]) if "hex" in message else message["text"].encode()
    fields = decode_object(payload)
    if message["reason"] in ("not-utf8", "not-json", "not-an-object"):
        assert fields is None
    if fields is not None and fields["msg_type"] == TYPES.start:
        assert decode_start(fields) is None


def test_deep_nesting_breaks_nothing() -> None:
    assert decode_object(b"[" * 200_000) is None


def test_who_says_what() -> None:
    assert comes_from_server(TYPES.start, TYPES) is True
    assert comes_from_server(TYPES.ready, TYPES) is False
    assert comes_from_server(messages.SYNC, TYPES) is True
    assert comes_from_server(messages.SEND_MODEL, TYPES) is False
    assert comes_from_server(77, TYPES) is None
    assert comes_from_server(0, TYPES) is None
    moved = MessageTypes(ready=20, start=21, send=22)
    assert comes_from_server(9, moved) is None
    assert comes_from_server(21, moved) is True
