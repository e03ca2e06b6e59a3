"""What the server asks of the coordinator about rounds: when one is over, what was sent in it, where a run stands."""

from __future__ import annotations

import functools
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Mapping

from .coordinator import Answer, Coordinator, refusal, wait
from .errors import FedfabError, ModelFormatError
from .log import LOG
from .model_format import Model, check_kind, decode_model, digest_of

_WAIT_S = 30
_TELL_EVERY_S = 60.0
_BEHIND_PAUSE_S = 0.05
_LONGEST_BEHIND_PAUSE_S = 1.0
_LOST_AFTER_S = 15.0


@dataclass(frozen=True)
class Arrival:
    """One local model, read back from the chain."""

    client: int
    num_samples: int
    model: Model = field(repr=False)


@dataclass(frozen=True)
class ClosedRound:
    """A round that is over, with what came in."""

    round_id: str
    round_idx: int
    have: tuple[int, ...]
    missing: tuple[int, ...]


@dataclass(frozen=True)
class Standing:
    """Where a run is that was begun before this server was started."""

    round_idx: int
    """The round to take up."""
    closed: ClosedRound | None
    """Set where that round is over, but not aggregated."""


def standing_of(view: Mapping[str, Any] | None) -> Standing | None:
    """Read ``GET /v1/runs/{run}``; None where the run begins with its first round, or is over."""
    round_view = (view or {}).get("round")
    if view is None or view.get("phase") != "running" or round_view is None:
        return None
    round_idx = int(round_view["round_idx"])
    if round_view["phase"] != "complete":
        return Standing(round_idx, None)
    if round_view.get("global") is not None:
        return Standing(round_idx + 1, None)
    clients = round_view["clients"]
    have = tuple(int(client["client"]) for client in clients if client["phase"] == "sent")
    missing = tuple(int(client["client"]) for client in clients if client["phase"] != "sent")
    if not have:
        return Standing(round_idx, None)
    return Standing(round_idx, ClosedRound(str(round_view["round_id"]), round_idx, have, missing))


class RoundWatch:
    """Waits, in a thread of its own, until a round is over; then reads its models.

    ``on_closed(round, arrivals)``, ``on_lost()`` (the coordinator has not heard of the round for a while) and
    ``on_failure(error)`` are called in that thread.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        round_idx: int,
        *,
        stale_round_id: str | None,
        like: Callable[[], Model],
        any_kind: bool = False,
        on_closed: Callable[[ClosedRound, list[Arrival]], None],
        on_lost: Callable[[], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._coordinator = coordinator
        self._round_idx = round_idx
        self._stale = stale_round_id
        self._like = like
        self._any_kind = any_kind
        self._on_closed = on_closed
        self._on_lost = on_lost
        self._on_failure = on_failure
        self._stop = threading.Event()
        self._seen_at = time.monotonic()
        self._told: tuple[Any, float] = (None, float("-inf"))

    def start(self) -> None:
        """Begin to wait."""
        threading.Thread(target=self._run, name=f"fedfab-round-{self._round_idx}", daemon=True).start()

    def stop(self) -> None:
        """Wait no longer. May be called twice."""
        self._stop.set()

    def _run(self) -> None:
        try:
            closed = self._closed()
            if closed is not None:
                arrivals = read_models(self._coordinator, closed, self._like(), any_kind=self._any_kind)
                if not self._stop.is_set():
                    self._on_closed(closed, arrivals)
        except Exception as error:
            self._on_failure(error)

    def _closed(self) -> ClosedRound | None:
        self._seen_at = time.monotonic()
        pause_s, seen_closed = _BEHIND_PAUSE_S, ""
        while not self._stop.is_set():
            # Asked twice: a server that begins a run anew sees its old first round end before the new one is current.
            wait_s = 0 if seen_closed else _WAIT_S
            ask = functools.partial(self._coordinator.received, wait_s)
            answer = self._coordinator.patiently(f"round {self._round_idx}", ask, give_up=self._stop)
            if answer is None:
                return None
            received = self._received(answer)
            if received is None:
                wait(pause_s, self._stop)
                pause_s = min(2 * pause_s, _LONGEST_BEHIND_PAUSE_S)
                seen_closed = ""
                continue
            if received["closed"] and seen_closed == received["round_id"]:
                return _closed_round(received)
            seen_closed = str(received["round_id"]) if received["closed"] else ""
        return None

    def _received(self, answer: Answer) -> dict[str, Any] | None:
        """The answer where it is of our round; None where the coordinator is not there yet."""
        if answer.code == "unknown_run":
            raise FedfabError(
                "the coordinator does not know this run any more: an operator forgot it, or its journal is lost. "
                "Its models are on the chain; start server and clients again to begin anew, or take another run_id"
            )
        if answer.status not in (200, 404):
            raise refusal(f"round {self._round_idx}", answer)
        body = answer.json() if answer.status == 200 else {}
        stale = body.get("round_id") == self._stale
        if body.get("round_idx") == self._round_idx and not stale:
            self._seen_at = time.monotonic()
            self._tell_missing(body)
            return dict(body)
        if int(body.get("round_idx", -1)) > self._round_idx and not stale:
            raise FedfabError(
                f"the coordinator is in round {body['round_idx']}, this server in {self._round_idx}: "
                "is there another server of this run? Stop one, or give each its own run_id"
            )
        self._tell_lost()
        return None

    def _tell_missing(self, body: Mapping[str, Any]) -> None:
        missing, told_at = self._told
        now = time.monotonic()
        if not body["closed"] and (body["missing"] != missing or now - told_at >= _TELL_EVERY_S):
            LOG.info("round %s: waiting for the models of clients %s", self._round_idx, body["missing"])
            self._told = (body["missing"], now)

    def _tell_lost(self) -> None:
        if time.monotonic() - self._seen_at >= _LOST_AFTER_S:
            LOG.warning("round %s: the coordinator has not heard of it: saying it again", self._round_idx)
            self._seen_at = time.monotonic()
            self._on_lost()


def _closed_round(received: Mapping[str, Any]) -> ClosedRound:
    have, missing = (tuple(int(client) for client in received[key]) for key in ("have", "missing"))
    return ClosedRound(str(received["round_id"]), int(received["round_idx"]), have, missing)


def read_models(coordinator: Coordinator, closed: ClosedRound, like: Model, *, any_kind: bool = False) -> list[Arrival]:
    """The models of a round from the chain, each checked against its receipt; by client id.

    One that cannot be read, or is not of the kind of ``like``, is left out, with an error in the log: its client is at
    fault, not the others. ``any_kind``: names, shapes and types may be others.
    """
    receipts = {str(receipt["client_id"]): receipt for receipt in coordinator.receipts(closed.round_id)}
    arrivals = []
    for client in sorted(closed.have):
        receipt = receipts.get(str(client))
        if receipt is None:
            raise FedfabError(f"the chain has no receipt of client {client} in round {closed.round_id}")
        body = _read_body(coordinator, closed, client, receipt)
        try:
            model = decode_model(body, str(receipt["media_type"]), like)
            if not any_kind:
                check_kind(model, like)
        except ModelFormatError as error:
            LOG.error("round %s: the model of client %s is left out: %s", closed.round_idx, client, error)
            continue
        arrivals.append(Arrival(client, _samples(closed, client, receipt), model))
    if not arrivals:
        raise FedfabError(
            f"round {closed.round_idx} has no model that can be aggregated, the log says why. Where clients rightly "
            "send something else than a model like the global one, write fedfab_args.local_models: any"
        )
    return _weighed(closed, arrivals)


def _read_body(coordinator: Coordinator, closed: ClosedRound, client: int, receipt: Mapping[str, Any]) -> bytes:
    answer = coordinator.model(closed.round_id, client)
    if digest_of(answer.body) != receipt["digest"]:
        raise FedfabError(
            f"the model of client {client} in round {closed.round_id} is not what its receipt on the chain says"
        )
    return answer.body


def _samples(closed: ClosedRound, client: int, receipt: Mapping[str, Any]) -> int:
    samples = receipt.get("num_samples")
    if samples is None:
        LOG.warning("round %s: client %s gave no number of samples: it counts as 1", closed.round_idx, client)
        return 1
    return int(samples)


def _weighed(closed: ClosedRound, arrivals: list[Arrival]) -> list[Arrival]:
    """With a number of samples to divide by: FedML's mean knows no other weights."""
    if any(arrival.num_samples for arrival in arrivals):
        return arrivals
    LOG.warning("round %s: no client has a sample, they say: all count the same", closed.round_idx)
    return [replace(arrival, num_samples=1) for arrival in arrivals]
