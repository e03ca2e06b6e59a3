"""A client's way onto the chain: READY until START, upload within the lease, SEND.

As docs/protocol.md has it, "What a client does". Knows neither FedML nor MQTT: it is told of messages, and given what
publishes and what calls the coordinator.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from enum import Enum
from typing import Callable, NamedTuple

from .coordinator import READ_TIMEOUT_S, Answer, Coordinator, UnreachableError, refusal
from .log import LOG
from .messages import Start
from .model_format import EncodedModel

_TELL_EVERY_S = 60.0
_SHORTEST_AGAIN_S = 1.0
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
_BAD_REQUESTS = 5
# One try takes at most this part of what is left of the lease: so one that hangs is followed by others within it.
_PART_OF_LEASE = 3
_SHORTEST_TRY_S = 2.0


class Place(NamedTuple):
    """Which life of the server a message is of, and which round. None where the server says neither."""

    life: str | None
    round_idx: int | None


class Mailbox:
    """What the network's thread tells the main one about the run, without waiting for it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._start: tuple[Start, float] | None = None
        self._ready_due = False
        self._over: set[str] = set()
        self._lives: set[str | None] = set()
        """Those of the server that were in the newest place: one that came back goes on in it."""
        self.newest: Place | None = None
        """The newest place that the server has asked this client to be at."""
        self.ended = False

    def advance(self, place: Place, *, is_init: bool) -> bool:
        """INIT or SYNC came: True where it asks for something new. The server may say everything more than once."""
        with self._changed:
            if not self._is_news(place, is_init):
                self._lives.add(place.life)
                return False
            self.newest, self._lives, self._start = place, {place.life}, None
            self._changed.notify_all()
            return True

    def _is_news(self, place: Place, is_init: bool) -> bool:
        newest = self.newest
        if newest is None:
            return True
        if place.round_idx is None or newest.round_idx is None:
            # A server without the plug-in, where only the kind of the message tells; FedML's client does the same.
            return not is_init
        if place.life in self._lives:
            return place.round_idx > newest.round_idx
        # Another life: the same round goes on, unless it is the first and such a server begins it anew: by INIT.
        return place.round_idx != newest.round_idx or (place.round_idx == 0 and is_init)

    def end(self) -> None:
        """FINISH came, or the coordinator says that the run is over."""
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def put_start(self, start: Start) -> None:
        """START came. Its lease runs from now."""
        with self._changed:
            if start.round_id in self._over:
                LOG.info("passed over a START of a round %s that is over", start.round_idx)
                return
            self._start = (start, time.monotonic() + start.lease_s)
            self._changed.notify_all()

    def round_is_over(self, round_id: str) -> None:
        """The coordinator says so. If it was one of before, such as a first round that was begun anew, ours goes on."""
        with self._changed:
            self._over.add(round_id)

    def connected_again(self) -> None:
        """Messages may have been lost: say READY again."""
        with self._changed:
            self._ready_due = True
            self._changed.notify_all()

    def is_over(self, place: Place | None) -> bool:
        """Whether the run has gone on from this place."""
        return self.ended or (place is not None and self._moved_on(place))

    def _moved_on(self, place: Place) -> bool:
        return self.newest is not None and self.newest != place

    def wait(self, place: Place | None, timeout_s: float) -> None:
        """Wait until something of interest comes, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_over(place) or self._start or self._ready_due, timeout_s)
            self._ready_due = False

    def pause(self, place: Place | None, timeout_s: float) -> None:
        """Wait until the run goes on from this place, another START comes, or the time is over."""
        with self._changed:
            before = self._start
            self._changed.wait_for(lambda: self.is_over(place) or self._start is not before, timeout_s)

    def take_start(self, round_idx: int | None) -> tuple[Start, float] | None:
        """The newest START of this round, with the time (monotonic) at which its lease ends. Others are passed over."""
        with self._changed:
            found, self._start = self._start, None
        if found is not None and round_idx is not None and found[0].round_idx != round_idx:
            LOG.info("passed over a START of round %s: this is round %s", found[0].round_idx, round_idx)
            return None
        return found

    def newer_start(self) -> bool:
        """Whether a START has come that was not taken yet."""
        return self._start is not None


class _After(Enum):
    """What to do after an upload was answered."""

    SEND = "publish SEND"
    READY = "publish READY at once"
    START = "wait for START"
    DONE = "nothing more to do in this round"
    AGAIN = "the same PUT again"


@dataclass(frozen=True)
class Submission:
    """A trained model on its way."""

    place: Place | None
    round_idx: int | None
    model: EncodedModel
    num_samples: int | None


class Admission:
    """Brings one model after the other onto the chain; ``deliver`` blocks, in the main thread."""

    def __init__(
        self,
        mailbox: Mailbox,
        coordinator: Coordinator,
        *,
        publish_ready: Callable[[Submission], None],
        publish_send: Callable[[Submission], None],
        ready_every_s: float,
        on_waiting: Callable[[], None] = lambda: None,
    ) -> None:
        """``on_waiting`` is called each minute while START does not come: what ends the run may have been missed."""
        self._on_waiting = on_waiting
        self._mailbox = mailbox
        self._coordinator = coordinator
        self._publish_ready = publish_ready
        self._publish_send = publish_send
        self._ready_every_s = ready_every_s

    def deliver(self, submission: Submission) -> bool:
        """True when the model is on the chain; False when the round was over before. Raises for what nothing mends."""
        began = told = time.monotonic()
        ready_at = began
        said_at = float("-inf")
        while not self._mailbox.is_over(submission.place):
            now = time.monotonic()
            if now >= ready_at:
                self._publish_ready(submission)
                said_at, ready_at = now, now + self._ready_every_s
            if now - told >= _TELL_EVERY_S:
                LOG.info("round %s: READY since %.0f s, waiting for START", submission.round_idx, now - began)
                told = now
                self._on_waiting()
            self._mailbox.wait(submission.place, ready_at - now)
            taken = self._mailbox.take_start(submission.round_idx)
            if taken is None:
                # Woken by a new connection, or the time is over.
                ready_at = max(min(ready_at, time.monotonic()), said_at + _SHORTEST_AGAIN_S)
                continue
            after = self._upload(submission, *taken)
            if after is _After.SEND:
                self._publish_send(submission)
                return True
            if after is _After.DONE:
                return False
            ready_at = time.monotonic() + (self._ready_every_s if after is _After.START else 0)
            ready_at = max(ready_at, said_at + _SHORTEST_AGAIN_S)
        LOG.info("round %s is over before this client's model was sent", submission.round_idx)
        return False

    def _upload(self, submission: Submission, start: Start, lease_until: float) -> _After:
        """``PUT`` until it is answered or the lease is over."""
        model, pause_s, bad_requests = submission.model, _FIRST_PAUSE_S, 0
        while not self._mailbox.is_over(submission.place):
            left_s = lease_until - time.monotonic()
            try:
                answer = self._coordinator.upload(
                    start.upload_url,
                    start.upload_token,
                    data=model.data,
                    media_type=model.media_type,
                    num_samples=submission.num_samples,
                    read_timeout_s=min(READ_TIMEOUT_S, max(left_s / _PART_OF_LEASE, _SHORTEST_TRY_S)),
                )
            except UnreachableError as error:
                LOG.warning("round %s: upload not answered (%s): again until the lease is over", start.round_idx, error)
                pause_s = max(min(2 * pause_s, _LONGEST_PAUSE_S), error.retry_after_s)
            else:
                after = _judge(answer, start)
                bad_requests += after is _After.AGAIN
                if answer.status in (404, 410):
                    self._mailbox.round_is_over(start.round_id)
                if after is not _After.AGAIN:
                    return after
                if bad_requests >= _BAD_REQUESTS:
                    raise refusal("the upload of the model", answer)
            if time.monotonic() >= lease_until:
                LOG.warning("round %s: the lease is over before the model was taken: READY again", start.round_idx)
                return _After.READY
            self._mailbox.pause(submission.place, pause_s)
            if self._mailbox.newer_start():
                # With a newer token; the loop around takes it.
                return _After.START
        return _After.DONE


def _judge(answer: Answer, start: Start) -> _After:
    """What an answer to PUT means: the table of docs/protocol.md."""
    if answer.status in (200, 201):
        LOG.info("round %s: the model is on the chain", start.round_idx)
        return _After.SEND
    LOG.warning("round %s: upload refused (%s): %s", start.round_idx, answer.code, answer.detail)
    if answer.status == 409:
        return _judge_conflict(answer)
    # 404, 410: where this round is over the server goes on to the next. But the START may be late, of a round before.
    known = {400: _After.AGAIN, 401: _After.READY, 404: _After.START, 410: _After.START}.get(answer.status)
    if known is None:
        raise refusal("the upload of the model", answer)
    return known


def _judge_conflict(answer: Answer) -> _After:
    if answer.code == "model_conflict":
        # An earlier one of this client's, from before it was started again: that one counts.
        return _After.SEND
    phase = answer.problem.get("phase")
    return {"sent": _After.DONE, "ready": _After.START}.get(str(phase), _After.READY)
