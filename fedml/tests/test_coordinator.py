"""The HTTP side: what is said to the coordinator, what its answers mean, and that nothing secret shows."""

from __future__ import annotations

import base64
import hashlib
import threading
from typing import Any

import pytest
import requests
from conftest import Authority, StandIn, json_reply, needs_openssl, problem

from fedml_fedfab import coordinator as module
from fedml_fedfab.coordinator import Coordinator, UnreachableError
from fedml_fedfab.errors import CoordinatorError

SECRET = "hush-hush"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "wait", lambda _seconds, give_up=None: None)


def test_an_upload_says_what_the_protocol_asks_for(stand_in: StandIn) -> None:
    stand_in.answer = lambda _seen: json_reply(201, {"digest": "d"})
    coordinator = Coordinator(stand_in.url, "r/1", SECRET)
    answer = coordinator.upload(f"{stand_in.url}/up", "one-use", data=b"model", media_type="a/b", num_samples=0)
    (seen,) = stand_in.seen
    assert answer.status == 201
    assert (seen.method, seen.path, seen.body) == ("PUT", "/up?num_samples=0", b"model")
    assert seen.headers["authorization"] == "Bearer one-use"
    assert seen.headers["content-type"] == "a/b"
    digest = base64.b64encode(hashlib.sha256(b"model").digest()).decode()
    assert seen.headers["content-digest"] == f"sha-256=:{digest}:"


def test_a_body_goes_out_in_blocks_and_says_its_length(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one piece all of it would have to be out within the time that a connection may take."""
    stand_in.answer = lambda _seen: json_reply(201, {})
    bodies: list[Any] = []
    real = requests.Session.request

    def request(self: Any, *arguments: Any, **named: Any) -> Any:
        bodies.append((named["data"], named["timeout"]))
        return real(self, *arguments, **named)

    monkeypatch.setattr(requests.Session, "request", request)
    data = bytes(3_000_000)
    coordinator = Coordinator(stand_in.url, "r")
    coordinator.upload(f"{stand_in.url}/up", "t", data=data, media_type="a/b", num_samples=None, read_timeout_s=7)
    ((body, timeout),) = bodies
    assert hasattr(body, "read")
    assert timeout[1] == 7
    (seen,) = stand_in.seen
    assert seen.headers["content-length"] == "3000000"
    assert seen.body == data


def test_what_is_known_need_not_come_again(stand_in: StandIn) -> None:
    stand_in.answer = lambda seen: (304, {}, b"") if seen.headers.get("if-none-match") == '"d"' else (200, {}, b"m")
    coordinator = Coordinator(stand_in.url, "r")
    assert coordinator.global_model().body == b"m"
    assert coordinator.global_model('"d"').status == 304


def test_the_phase_of_a_run(stand_in: StandIn) -> None:
    coordinator = Coordinator(stand_in.url, "r")
    stand_in.answer = lambda _seen: json_reply(200, {"phase": "finished"})
    assert coordinator.phase() == "finished"
    stand_in.answer = lambda _seen: problem(404, "unknown_run")
    assert coordinator.phase() == ""


@needs_openssl
def test_a_coordinator_with_a_certificate_by_an_authority_of_one_s_own(
    stand_in: StandIn, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.speak_tls(*authority.issue("coordinator"))
    stand_in.answer = lambda _seen: json_reply(200, {"phase": "idle"})
    # It would win over a session's own.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.issue("another")[0]))
    assert Coordinator(stand_in.url, "r", ca_file=str(authority.ca)).phase() == "idle"
    with pytest.raises(UnreachableError, match=r"not trusted: .*coordinator_ca_file"):
        Coordinator(stand_in.url, "r").phase()


def test_no_token_no_header(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    # requests would take a password for this host from here.
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login somebody password something\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    Coordinator(stand_in.url, "r").call("GET", "/x")
    assert "authorization" not in stand_in.seen[0].headers


def test_the_run_is_one_segment(stand_in: StandIn) -> None:
    Coordinator(stand_in.url, "a/b ?").run_view()
    assert stand_in.seen[0].path == "/v1/runs/a%2Fb%20%3F"


def test_what_passes_is_asked_again(stand_in: StandIn) -> None:
    replies = [
        None,
        problem(503, "ledger_unavailable"),
        problem(500, "internal"),
        json_reply(200, {"phase": "running"}),
    ]
    stand_in.answer = lambda _seen: replies.pop(0)
    assert Coordinator(stand_in.url, "r").run_view() == {"phase": "running"}
    assert len(stand_in.seen) == 4


def test_one_call_tells_when_to_come_again(stand_in: StandIn) -> None:
    stand_in.answer = lambda _seen: (503, {"retry-after": "7"}, b"")
    with pytest.raises(UnreachableError) as caught:
        Coordinator(stand_in.url, "r").global_model()
    assert caught.value.retry_after_s == 7


def test_nobody_there(stand_in: StandIn) -> None:
    stand_in.close()
    with pytest.raises(UnreachableError, match="refused"):
        Coordinator(stand_in.url, "r", SECRET).global_model()


def test_giving_up(stand_in: StandIn) -> None:
    stop = threading.Event()
    coordinator = Coordinator(stand_in.url, "r")

    def call() -> Any:
        stop.set()
        raise UnreachableError("away")

    assert coordinator.patiently("something", call, give_up=stop) is None


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (problem(401, "bad_token"), "fedfab_args.token or in FEDFAB_TOKEN"),
        (problem(403, "forbidden"), "the token is not for this"),
        (problem(413, "too_large"), "http.body_limit_mb"),
        (problem(409, "round_conflict"), r"round_conflict: detail of round_conflict"),
        ((418, {}, b"teapot"), "HTTP 418"),
    ],
)
def test_a_refusal_says_what_to_do(stand_in: StandIn, reply: Any, said: str) -> None:
    stand_in.answer = lambda _seen: reply
    with pytest.raises(CoordinatorError, match=said) as caught:
        Coordinator(stand_in.url, "r", SECRET).receipts("1")
    assert SECRET not in str(caught.value)
    assert caught.value.status == reply[0]


@pytest.mark.parametrize(
    "reply", [(200, {}, b"<html>"), (302, {"location": "http://elsewhere"}, b""), json_reply(200, [])]
)
def test_something_else_at_this_address(stand_in: StandIn, reply: Any) -> None:
    stand_in.answer = lambda _seen: reply
    with pytest.raises(CoordinatorError, match=r"coordinator_url"):
        Coordinator(stand_in.url, "r").run_view()


def test_all_pages_of_receipts(stand_in: StandIn) -> None:
    def answer(seen: Any) -> Any:
        if "after=2" in seen.path:
            return json_reply(200, {"receipts": [{"client_id": "3"}], "next": None})
        return json_reply(200, {"receipts": [{"client_id": "1"}, {"client_id": "2"}], "next": 2})

    stand_in.answer = answer
    found = Coordinator(stand_in.url, "r").receipts("7")
    assert [receipt["client_id"] for receipt in found] == ["1", "2", "3"]


def test_the_initial_model_and_that_of_a_round(stand_in: StandIn) -> None:
    stand_in.answer = lambda _seen: json_reply(201, {})
    coordinator = Coordinator(stand_in.url, "r", SECRET)
    coordinator.put_global(b"m", "a/b", None)
    coordinator.put_global(b"m", "a/b", "42")
    assert [seen.path for seen in stand_in.seen] == ["/v1/runs/r/global", "/v1/runs/r/rounds/42/global"]
    assert {seen.headers["authorization"] for seen in stand_in.seen} == {f"Bearer {SECRET}"}
