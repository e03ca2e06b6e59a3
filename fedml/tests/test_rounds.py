"""The server's questions: where a run stands, when a round is over, which models are of it."""

from __future__ import annotations

import json
import queue
from collections import OrderedDict
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from conftest import ENCODINGS, StandIn, json_reply, problem

from fedml_fedfab import rounds as module
from fedml_fedfab.coordinator import Coordinator
from fedml_fedfab.errors import FedfabError
from fedml_fedfab.model_format import encode_model
from fedml_fedfab.rounds import ClosedRound, RoundWatch, Standing, read_models, standing_of

LIKE = OrderedDict(w=np.zeros(2, np.float32))
CLOSED = ClosedRound("77", 3, (1, 2), (5,))


def client(number: int, phase: str) -> dict[str, Any]:
    return {"client": number, "phase": phase}


def view(phase: str, round_idx: int, *, run: Any = "running", **rest: Any) -> dict[str, Any]:
    clients = [client(1, "sent"), client(2, "ready")]
    return {
        "phase": run,
        "round": {"round_id": "9", "round_idx": round_idx, "phase": phase, "clients": clients, **rest},
    }


@pytest.mark.parametrize(
    ("given", "stands"),
    [
        (None, None),
        ({"phase": "idle", "round": None}, None),
        (view("complete", 4, run="finished"), None),
        (view("open", 0), Standing(0, None)),
        (view("gathering", 0), Standing(0, None)),
        (view("open", 2), Standing(2, None)),
        (view("closing", 2), Standing(2, None)),
        (view("complete", 2), Standing(2, ClosedRound("9", 2, (1,), (2,)))),
        (view("complete", 0), Standing(0, ClosedRound("9", 0, (1,), (2,)))),
        (view("complete", 2, **{"global": {"digest": "d"}}), Standing(3, None)),
        (view("complete", 2, clients=[client(1, "ready")]), Standing(2, None)),
        (view("complete", 0, clients=[client(1, "ready")]), Standing(0, None)),
    ],
)
def test_where_a_run_stands(given: Any, stands: Any) -> None:
    assert standing_of(given) == stands


def model(value: float) -> Any:
    return encode_model(OrderedDict(w=np.full(2, value, np.float32)), "safetensors")


class Chain:
    """Receipts and models as the coordinator gives them back."""

    def __init__(self, stand_in: StandIn) -> None:
        self.models = {1: model(1), 2: model(2)}
        self.receipts = {
            number: {
                "client_id": str(number),
                "digest": encoded.digest,
                "media_type": encoded.media_type,
                "num_samples": 10 * number,
            }
            for number, encoded in self.models.items()
        }
        stand_in.answer = self._answer
        self.coordinator = Coordinator(stand_in.url, "r")

    def _answer(self, seen: Any) -> Any:
        path = urlsplit(seen.path).path
        if path == "/v1/runs/r/rounds/77/models":
            return json_reply(200, {"receipts": list(self.receipts.values()), "next": None})
        encoded = self.models[int(path.rsplit("/", 1)[1])]
        return 200, {"content-type": encoded.media_type}, encoded.data

    def read(self, *, any_kind: bool = False) -> Any:
        return read_models(self.coordinator, CLOSED, LIKE, any_kind=any_kind)


@pytest.fixture
def chain(stand_in: StandIn) -> Chain:
    return Chain(stand_in)


def test_models_come_with_their_sample_numbers(chain: Chain) -> None:
    arrivals = chain.read()
    assert [(arrival.client, arrival.num_samples) for arrival in arrivals] == [(1, 10), (2, 20)]
    assert [arrival.model["w"].tolist() for arrival in arrivals] == [[1, 1], [2, 2]]


def test_a_model_that_is_not_its_receipt_s_is_refused(chain: Chain) -> None:
    chain.models[2] = model(3)
    with pytest.raises(FedfabError, match="client 2 in round 77 is not what its receipt"):
        chain.read()


def test_a_model_without_receipt_is_refused(chain: Chain) -> None:
    del chain.receipts[2]
    with pytest.raises(FedfabError, match="no receipt of client 2"):
        chain.read()


def test_a_model_that_cannot_be_read_is_left_out(chain: Chain) -> None:
    chain.receipts[1]["media_type"] = "application/x-pickle"
    assert [arrival.client for arrival in chain.read()] == [2]
    chain.receipts[2]["media_type"] = "application/x-pickle"
    with pytest.raises(FedfabError, match="no model that can be aggregated"):
        chain.read()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (OrderedDict(w=np.zeros(3, np.float32)), "'w' is numpy's real numbers of shape [3], in the global model"),
        (OrderedDict(w=np.zeros(2, np.complex64)), "'w' is numpy's complex64 of shape [2]"),
        (OrderedDict(), "it lacks 'w'"),
        (OrderedDict(w=np.zeros(2, np.float32), v=np.zeros(1, np.float32)), "it has 'v', which the global model"),
    ],
    ids=["shape", "type", "missing", "more"],
)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_model_of_another_kind_is_left_out(
    chain: Chain, caplog: pytest.LogCaptureFixture, wrong: Any, said: str, encoding: str
) -> None:
    """Aggregated with the others it would end the run, for all of them."""
    if encoding == "json" and "complex" in said:
        encoding = "safetensors"
    encoded = encode_model(wrong, encoding)
    chain.models[1] = encoded
    chain.receipts[1].update(digest=encoded.digest, media_type=encoded.media_type)
    assert [arrival.client for arrival in chain.read()] == [2]
    assert "the model of client 1 is left out" in caplog.text
    if encoding == "safetensors":
        assert said in caplog.text


def test_where_it_is_asked_for_models_of_another_kind_are_taken(chain: Chain) -> None:
    encoded = encode_model(OrderedDict(delta=np.zeros(5, np.float32)), "safetensors")
    chain.models[1] = encoded
    chain.receipts[1].update(digest=encoded.digest)
    assert [arrival.client for arrival in chain.read(any_kind=True)] == [1, 2]


def test_real_numbers_of_all_types_can_be_averaged(chain: Chain) -> None:
    """FedML's mean of whole numbers is a floating-point one: the global model and the clients' then differ in type."""
    encoded = encode_model(OrderedDict(w=np.zeros(2, np.int64)), "safetensors")
    chain.models[1] = encoded
    chain.receipts[1].update(digest=encoded.digest)
    assert [arrival.client for arrival in chain.read()] == [1, 2]


def test_where_nobody_has_a_sample_all_count_the_same(chain: Chain) -> None:
    chain.receipts[1]["num_samples"] = chain.receipts[2]["num_samples"] = 0
    assert [arrival.num_samples for arrival in chain.read()] == [1, 1]


def test_without_a_sample_number_it_counts_as_one(chain: Chain) -> None:
    chain.receipts[1]["num_samples"] = None
    chain.receipts[2]["num_samples"] = 0
    assert [arrival.num_samples for arrival in chain.read()] == [1, 0]


def received(round_id: str, round_idx: int, *, closed: bool) -> dict[str, Any]:
    return {
        "round_id": round_id,
        "round_idx": round_idx,
        "received": closed,
        "closed": closed,
        "have": [1, 2] if closed else [1],
        "missing": [] if closed else [2],
    }


class Watched:
    """A watch of round 3 over answers to ``received``; the last one is given for ever."""

    def __init__(self, stand_in: StandIn, answers: list[Any], stale: str | None = None) -> None:
        self.chain = Chain(stand_in)
        models = stand_in.answer
        self.waits: list[str] = []

        def answer(seen: Any) -> Any:
            if "received" not in seen.path:
                return models(seen)
            self.waits.append(seen.path.split("wait=")[1])
            reply = answers.pop(0) if len(answers) > 1 else answers[0]
            return reply if isinstance(reply, tuple) else json_reply(200, reply)

        stand_in.answer = answer
        self.news: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.watch = RoundWatch(
            self.chain.coordinator,
            3,
            stale_round_id=stale,
            like=lambda: LIKE,
            on_closed=lambda closed, arrivals: self.news.put(("closed", (closed, [a.client for a in arrivals]))),
            on_lost=lambda: self.news.put(("lost", None)),
            on_failure=lambda error: self.news.put(("failed", str(error))),
        )

    def first(self) -> tuple[str, Any]:
        self.watch.start()
        try:
            return self.news.get(timeout=30)
        finally:
            self.watch.stop()


def test_a_round_that_is_over_is_read(stand_in: StandIn) -> None:
    answers = [received("77", 3, closed=False), received("77", 3, closed=True)]
    watched = Watched(stand_in, answers)
    kind, (closed, clients) = watched.first()
    assert (kind, closed, clients) == ("closed", ClosedRound("77", 3, (1, 2), ()), [1, 2])
    assert watched.waits == ["30", "30", "0"]


def test_a_round_closed_by_quorum_is_taken_up_too(stand_in: StandIn) -> None:
    quorum = {**received("77", 3, closed=True), "received": False, "have": [2], "missing": [1]}
    kind, (closed, clients) = Watched(stand_in, [quorum]).first()
    assert (kind, closed.missing, clients) == ("closed", (1,), [2])


def test_the_round_before_is_waited_out(stand_in: StandIn) -> None:
    answers = [problem(404, "unknown_round"), received("76", 2, closed=True), received("77", 3, closed=True)]
    kind, (closed, _) = Watched(stand_in, answers).first()
    assert (kind, closed.round_id) == ("closed", "77")


def test_the_same_round_of_a_run_before_is_passed_over(stand_in: StandIn) -> None:
    answers = [received("66", 3, closed=True), received("66", 3, closed=True), received("77", 3, closed=True)]
    kind, (closed, _) = Watched(stand_in, answers, stale="66").first()
    assert (kind, closed.round_id) == ("closed", "77")


def test_a_coordinator_that_never_hears_of_the_round(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOST_AFTER_S", 0.0)
    assert Watched(stand_in, [received("76", 2, closed=True)]).first() == ("lost", None)


def test_another_server_of_the_same_run(stand_in: StandIn) -> None:
    kind, said = Watched(stand_in, [received("78", 4, closed=False)]).first()
    assert kind == "failed"
    assert "another server of this run" in said


def test_a_refusal_comes_out(stand_in: StandIn) -> None:
    kind, said = Watched(stand_in, [problem(401, "bad_token")]).first()
    assert (kind, "FEDFAB_TOKEN" in said) == ("failed", True)


def test_a_coordinator_that_has_lost_the_run_is_not_asked_for_ever(stand_in: StandIn) -> None:
    kind, said = Watched(stand_in, [problem(404, "unknown_run")]).first()
    assert kind == "failed"
    assert "does not know this run any more" in said


def test_what_a_stranger_answers_comes_out(stand_in: StandIn) -> None:
    kind, _ = Watched(stand_in, [(200, {}, json.dumps("hello").encode())]).first()
    assert kind == "failed"
