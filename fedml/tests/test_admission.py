"""A client's way onto the chain, told as the protocol has it: READY until START, upload within the lease, SEND."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any, Callable

import pytest

from fedml_fedfab import admission as module
from fedml_fedfab.admission import Admission, Mailbox, Place, Submission
from fedml_fedfab.coordinator import READ_TIMEOUT_S, Answer, UnreachableError
from fedml_fedfab.errors import CoordinatorError
from fedml_fedfab.messages import Start
from fedml_fedfab.model_format import EncodedModel

HERE = Place("life", 3)
MODEL = EncodedModel(b"model", "a/b", "digest")


def start(round_idx: int = 3, token: str = "t", lease_s: float = 60) -> Start:
    return Start("77", round_idx, lease_s, "http://c/up", token)


def answer(status: int, **problem: Any) -> Answer:
    import json

    headers = {"content-type": "application/problem+json"} if problem else {}
    return Answer(status, headers, json.dumps(problem).encode())


class Scene:
    """A client that waits for its turn; the test plays broker and coordinator, by what READY and PUT set off."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ready_every_s: float = 0.02) -> None:
        monkeypatch.setattr(module, "_SHORTEST_AGAIN_S", 0.0)
        monkeypatch.setattr(module, "_FIRST_PAUSE_S", 0.001)
        monkeypatch.setattr(module, "_LONGEST_PAUSE_S", 0.01)
        self.mailbox = Mailbox()
        self.mailbox.advance(HERE, is_init=True)
        self.said: list[str] = []
        self.tokens: list[str] = []
        self.times: list[float] = []
        self.waited = 0
        self.on_ready: Callable[[int], None] = lambda _count: None
        self.answers: Callable[[int], Answer] = lambda _count: answer(201)
        self.admission = Admission(
            self.mailbox,
            self,  # type: ignore[arg-type]
            publish_ready=self._ready,
            publish_send=lambda _submission: self.said.append("SEND"),
            ready_every_s=ready_every_s,
            on_waiting=self._on_waiting,
        )

    def _on_waiting(self) -> None:
        self.waited += 1
        self.mailbox.end()

    def _ready(self, _submission: Submission) -> None:
        self.said.append("READY")
        self.on_ready(self.said.count("READY"))

    def upload(self, _url: str, token: str, **rest: Any) -> Answer:
        assert (rest["data"], rest["media_type"], rest["num_samples"]) == (b"model", "a/b", 5)
        self.times.append(rest["read_timeout_s"])
        self.said.append("PUT")
        self.tokens.append(token)
        return self.answers(self.said.count("PUT"))

    def deliver(self) -> bool:
        return self.admission.deliver(Submission(HERE, HERE.round_idx, MODEL, 5))


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def test_ready_start_upload_send(scene: Scene) -> None:
    scene.on_ready = lambda _count: scene.mailbox.put_start(start())
    assert scene.deliver() is True
    assert scene.said == ["READY", "PUT", "SEND"]


def test_ready_is_repeated_until_start(scene: Scene) -> None:
    scene.on_ready = lambda count: scene.mailbox.put_start(start()) if count == 4 else None
    assert scene.deliver() is True
    assert scene.said == [*["READY"] * 4, "PUT", "SEND"]


def test_ready_is_said_again_after_a_new_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, ready_every_s=3600)

    def on_ready(count: int) -> None:
        if count == 1:
            threading.Thread(target=scene.mailbox.connected_again).start()
        else:
            scene.mailbox.put_start(start())

    scene.on_ready = on_ready
    assert scene.deliver() is True
    assert scene.said == ["READY", "READY", "PUT", "SEND"]


def test_a_start_of_another_round_is_passed_over(scene: Scene) -> None:
    scene.on_ready = lambda count: scene.mailbox.put_start(start(2 if count == 1 else 3))
    assert scene.deliver() is True
    assert scene.said == ["READY", "READY", "PUT", "SEND"]


@pytest.mark.parametrize(
    ("reply", "said", "delivered"),
    [
        (answer(200), ["READY", "PUT", "SEND"], True),
        (answer(409, code="model_conflict"), ["READY", "PUT", "SEND"], True),
        (answer(409, code="not_your_turn", phase="sent"), ["READY", "PUT"], False),
    ],
    ids=["there already", "an earlier one counts", "sent already"],
)
def test_answers_that_settle_it(scene: Scene, reply: Answer, said: list[str], delivered: bool) -> None:
    scene.on_ready = lambda _count: scene.mailbox.put_start(start())
    scene.answers = lambda _count: reply
    assert scene.deliver() is delivered
    assert scene.said == said


@pytest.mark.parametrize(
    "reply",
    [
        answer(401, code="bad_token"),
        answer(409, code="not_your_turn", phase="training"),
        answer(409, code="not_your_turn", phase="sending"),
        answer(409, code="not_your_turn", phase="ready"),
    ],
    ids=lambda reply: str(reply.problem),
)
def test_answers_after_which_it_begins_again(scene: Scene, reply: Answer) -> None:
    scene.on_ready = lambda count: scene.mailbox.put_start(start(token=str(count)))
    scene.answers = lambda count: reply if count == 1 else answer(201)
    assert scene.deliver() is True
    assert scene.said == ["READY", "PUT", "READY", "PUT", "SEND"]
    assert scene.tokens == ["1", "2"]


def test_what_is_not_answered_is_sent_again_within_the_lease(scene: Scene) -> None:
    def answers(count: int) -> Answer:
        if count < 4:
            raise UnreachableError("away")
        return answer(201)

    scene.on_ready = lambda _count: scene.mailbox.put_start(start())
    scene.answers = answers
    assert scene.deliver() is True
    assert scene.said == ["READY", *["PUT"] * 4, "SEND"]


def test_after_the_lease_ready_again(scene: Scene) -> None:
    def answers(count: int) -> Answer:
        if count == 1:
            raise UnreachableError("away")
        return answer(201)

    scene.on_ready = lambda count: scene.mailbox.put_start(start(lease_s=1e-9 if count == 1 else 60))
    scene.answers = answers
    assert scene.deliver() is True
    assert scene.said == ["READY", "PUT", "READY", "PUT", "SEND"]


def test_a_newer_start_is_used_at_once(scene: Scene) -> None:
    def answers(count: int) -> Answer:
        if count == 1:
            scene.mailbox.put_start(start(token="newer"))
            raise UnreachableError("away")
        return answer(201)

    scene.on_ready = lambda count: scene.mailbox.put_start(start(token="older")) if count == 1 else None
    scene.answers = answers
    assert scene.deliver() is True
    assert scene.tokens == ["older", "newer"]


OVER = [answer(404, code="unknown_round"), answer(410, code="round_closed")]


@pytest.mark.parametrize("reply", OVER, ids=["no such round", "round closed"])
def test_a_round_that_is_over_is_let_go_when_the_server_goes_on(scene: Scene, reply: Answer) -> None:
    def on_ready(count: int) -> None:
        if count == 1:
            scene.mailbox.put_start(start())
        else:
            scene.mailbox.advance(Place("life", 4), is_init=False)

    scene.on_ready, scene.answers = on_ready, lambda _count: reply
    assert scene.deliver() is False
    assert scene.said == ["READY", "PUT", "READY"]


@pytest.mark.parametrize("reply", OVER, ids=["no such round", "round closed"])
def test_a_late_start_of_a_first_round_that_was_begun_anew_ends_nothing(scene: Scene, reply: Answer) -> None:
    """It has the same number as ours, but another round_id."""
    late, ours = replace(start(token="late"), round_id="66"), start(token="ours")

    def on_ready(count: int) -> None:
        # Said a second time, it is not tried again.
        scene.mailbox.put_start(late if count < 3 else ours)

    scene.on_ready = on_ready
    scene.answers = lambda count: reply if count == 1 else answer(201)
    assert scene.deliver() is True
    assert scene.tokens == ["late", "ours"]


def test_a_coordinator_that_hangs_is_asked_again_within_the_lease(scene: Scene) -> None:
    def answers(count: int) -> Answer:
        if count < 3:
            raise UnreachableError("no answer within the time")
        return answer(201)

    scene.on_ready = lambda _count: scene.mailbox.put_start(start(lease_s=120))
    scene.answers = answers
    assert scene.deliver() is True
    # The default lease is as long as a try would take otherwise.
    assert all(0 < time_s <= 120 / 3 for time_s in scene.times)
    assert len(scene.times) == 3


def test_a_lease_of_a_day_does_not_make_a_try_longer(scene: Scene) -> None:
    scene.on_ready = lambda _count: scene.mailbox.put_start(start(lease_s=86_400))
    assert scene.deliver() is True
    assert scene.times == [READ_TIMEOUT_S]


def test_an_end_that_was_missed_is_asked_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TELL_EVERY_S", 0.0)
    assert scene.deliver() is False
    assert scene.waited == 1


@pytest.mark.parametrize("status", [403, 413, 415])
def test_what_nothing_mends_is_raised(scene: Scene, status: int) -> None:
    scene.on_ready = lambda _count: scene.mailbox.put_start(start())
    scene.answers = lambda _count: answer(status, code="x")
    with pytest.raises(CoordinatorError):
        scene.deliver()


def test_a_bad_request_is_repeated_a_few_times(scene: Scene) -> None:
    scene.on_ready = lambda _count: scene.mailbox.put_start(start())
    scene.answers = lambda _count: answer(400, code="bad_request")
    with pytest.raises(CoordinatorError):
        scene.deliver()
    assert scene.said == ["READY", *["PUT"] * 5]


@pytest.mark.parametrize(
    "news",
    [
        lambda mailbox: mailbox.advance(Place("life", 4), is_init=False),
        lambda mailbox: mailbox.advance(Place("another", 2), is_init=True),
        lambda mailbox: mailbox.end(),
    ],
    ids=["the next round", "an earlier one of a server that came back", "the end"],
)
def test_a_round_that_is_over_is_let_go(scene: Scene, news: Callable[[Mailbox], Any]) -> None:
    scene.on_ready = lambda _count: news(scene.mailbox)
    assert scene.deliver() is False
    assert scene.said == ["READY"]


def test_a_server_that_comes_back_in_this_round_changes_nothing(scene: Scene) -> None:
    def on_ready(_count: int) -> None:
        assert scene.mailbox.advance(Place("another", 3), is_init=True) is False
        scene.mailbox.put_start(start())

    scene.on_ready = on_ready
    assert scene.deliver() is True


def test_a_server_that_comes_back_in_the_first_round_begins_it_anew() -> None:
    mailbox = Mailbox()
    mailbox.advance(Place("one", 0), is_init=True)
    assert mailbox.advance(Place("one", 0), is_init=True) is False
    assert mailbox.advance(Place("two", 0), is_init=True) is True
    assert mailbox.is_over(Place("one", 0)) is True


def test_a_server_that_takes_the_first_round_up_says_sync_and_changes_nothing(scene: Scene) -> None:
    mailbox = scene.mailbox
    mailbox.newest = None
    first = Place("one", 0)
    assert mailbox.advance(first, is_init=True) is True
    assert mailbox.advance(Place("two", 0), is_init=False) is False
    assert mailbox.is_over(first) is False
    # To it and to nobody else, what it says next is news.
    assert mailbox.advance(Place("two", 0), is_init=True) is False
    assert mailbox.advance(Place("two", 1), is_init=False) is True
    assert mailbox.is_over(first) is True


def test_a_client_that_comes_back_joins_a_first_round_by_sync() -> None:
    assert Mailbox().advance(Place("two", 0), is_init=False) is True


def test_without_round_numbers_the_kind_of_message_tells() -> None:
    mailbox = Mailbox()
    assert mailbox.advance(Place(None, None), is_init=True) is True
    assert mailbox.advance(Place(None, None), is_init=True) is False
    assert mailbox.advance(Place(None, None), is_init=False) is True
