"""FedML's server, with the clients' models read back from the chain."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from typing import Any, Callable, Mapping, NamedTuple

from fedml import mlops
from fedml.core.distributed.communication.message import Message
from fedml.cross_silo.server.fedml_server_manager import FedMLServerManager
from fedml.cross_silo.server.message_define import MyMessage

from .aggregator import refuse_plain
from .coordinator import refusal
from .errors import FedfabError
from .log import LOG
from .messages import GLOBAL_DIGEST, GLOBAL_URL, INIT, ROUND_IDX, SEND_MODEL, SERVER_LIFE, SYNC
from .model_format import EncodedModel, Model, decode_model, digest_of, encode_model
from .node import FedfabNode
from .rounds import Arrival, ClosedRound, RoundWatch, Standing, read_models, standing_of


class _Global(NamedTuple):
    """The global model that a round starts from."""

    round_idx: int
    digest: str
    adopted: Model | None = None
    """Where the chain had another one than ours: that one."""


class FedfabServerManager(FedfabNode, FedMLServerManager):
    """Begins and ends rounds as FedML does; who is in, and with what, it asks of the chain."""

    def __init__(
        self,
        args: Any,
        aggregator: Any,
        comm: Any = None,
        client_rank: int = 0,
        client_num: int = 0,
        backend: str = "MQTT_S3",
    ) -> None:
        super().__init__(args, aggregator, comm, client_rank, client_num, backend)
        self._coordinator = self.new_coordinator()
        self._life = secrets.token_hex(8)
        self._began = False
        self._ended = False
        self._took_up_first = False
        self._global: _Global | None = None
        self._closed: ClosedRound | None = None
        self._stale_round_id: str | None = None
        self._sync_idx = 0
        self._watch: RoundWatch | None = None
        self.com_manager.on_idle = self._idle

    def get_sender_id(self) -> int:
        """The server's id, as it stands in its topics. (FedML gives its rank.)."""
        return self.server_id

    def register_message_receive_handlers(self) -> None:
        """FedML's, and READY and SEND: the server listens on the topics on which the clients say them."""
        super().register_message_receive_handlers()
        for kind in (self.settings.types.ready, self.settings.types.start, self.settings.types.send):
            self.register_message_receive_handler(kind, self._note_step)
        self.register_message_receive_handler(SEND_MODEL, self._refuse_model)

    def handle_message_connection_ready(self, msg_params: Any) -> None:
        """The connection is there: begin; or, when it was there before, ask who has missed what."""
        if self._began:
            # None, a list, or an array of numpy, which has no truth value.
            members = self.client_id_list_in_this_round
            self._ask_online([] if members is None else list(members))
            return
        self._began = True
        refuse_plain(self.aggregator.get_global_model_params())
        view = self._coordinator.run_view()
        if view is not None and view.get("phase") == "finished":
            self._end_at_once()
            return
        self._make_known(view)
        standing = standing_of(view)
        if standing is None or standing.round_idx > self.round_num or self._begins_anew(standing):
            self._begin_anew(view, msg_params)
            return
        LOG.info("run %s is in round %s: taking it up", self.args.run_id, standing.round_idx)
        self._take_up(standing.round_idx)
        if standing.closed is not None:
            # Before anybody is told of this round: a server that says "round 0" would begin the run anew.
            like = self.aggregator.get_global_model_params()
            arrivals = read_models(self._coordinator, standing.closed, like, any_kind=self._takes_any())
            self._aggregate(standing.closed, arrivals)
            return
        self._say_round(self.client_id_list_in_this_round)
        self._after_saying()

    def process_online_status(self, client_status: str, msg_params: Any) -> None:
        """A client is there. FedML sends INIT to all each time; here whoever comes in mid-run gets its own."""
        client = int(msg_params.get_sender_id())
        if self.client_id_list_in_this_round is None:
            return
        if not self.is_initialized:
            super().process_online_status(client_status, msg_params)
            if self.is_initialized:
                self._after_saying()
            else:
                self._tell_awaited()
            return
        self.client_online_mapping[str(client)] = True
        if client in [int(member) for member in self.client_id_list_in_this_round]:
            LOG.info("client %s is online: it is told that this is round %s", client, self.args.round_idx)
            self._say_round([client])
        elif self._is_past_last():
            self.send_message_finish(client, 0)

    def process_finished_status(self, client_status: str, msg_params: Any) -> None:
        """A client has ended; the last one ends the server."""
        self.client_finished_mapping[str(msg_params.get_sender_id())] = True
        if self._is_past_last() and not self._unfinished():
            self._end()

    def send_message(self, message: Any) -> None:
        """Adds to INIT and SYNC what the clients' plug-in needs; with ``chain`` the model stays here."""
        if message.get_type() in (INIT, SYNC):
            self._prepare(message, self._sync_idx if message.get_type() == SYNC else self.args.round_idx)
        super().send_message(message)

    def finish(self) -> None:
        """The end, once."""
        if self._watch is not None:
            self._watch.stop()
        super().finish()

    # Beginning.

    def _make_known(self, view: Mapping[str, Any] | None) -> None:
        """Tell the coordinator of the run, unless it knows the same already."""
        settings = self.settings
        if view is None or settings.run_settings or not self._agrees(view.get("config") or {}):
            self._coordinator.define_run(self._sections())

    def _takes_any(self) -> bool:
        return self.settings.local_models == "any"

    def _end_at_once(self) -> None:
        """The run is over: nothing is trained again. Whoever has missed the end hears it."""
        LOG.warning(
            "run %s is over, as the coordinator says: nothing to do. To train anew take another run_id, or have an "
            "operator forget this run first (DELETE /v1/runs/%s at the coordinator)",
            self.args.run_id,
            self._coordinator.run_segment,
        )
        # For whoever uses the aggregator's model after the run.
        with contextlib.suppress(FedfabError):
            self._take_up_global(0)
        self._ended = True
        for client in self.client_real_ids:
            self.send_message_finish(int(client), 0)
        self.finish()

    def _begins_anew(self, standing: Standing) -> bool:
        """With S3 the model that a first round has started from is nowhere to be had."""
        return standing.round_idx == 0 and standing.closed is None and self.settings.global_model == "s3"

    def _agrees(self, config: Mapping[str, Any]) -> bool:
        return (
            config.get("rounds") == int(self.round_num)
            and config.get("clientsPerRound") == int(self.args.client_num_per_round)
            and config.get("clients") in (None, [int(client) for client in self.client_real_ids])
            and config.get("serverId") == self.server_id
            and config.get("mode", "admit") == "admit"
        )

    def _sections(self) -> dict[str, Any]:
        """FedML's sections, as far as the coordinator needs them: nothing of brokers, storages or secrets."""
        args = self.args
        return {
            "common_args": {"training_type": "cross_silo"},
            "train_args": {
                "run_id": str(args.run_id),
                "server_id": self.server_id,
                "client_id_list": [int(client) for client in self.client_real_ids],
                "client_num_per_round": int(args.client_num_per_round),
                "comm_round": int(self.round_num),
            },
            # Even where the coordinator only observes other runs.
            "fedfab_args": {**self.settings.run_settings, "mode": "admit"},
        }

    def _begin_anew(self, view: Mapping[str, Any] | None, msg_params: Any) -> None:
        round_view = (view or {}).get("round")
        if round_view and round_view["round_idx"] != 0:
            # The coordinator's current round is one of a run before, until it has heard INIT.
            self._stale_round_id = str(round_view["round_id"])
        super().handle_message_connection_ready(msg_params)
        self._tell_awaited()

    def _take_up(self, round_idx: int) -> None:
        """Be where a server would be that had not been away."""
        digest = self._take_up_global(round_idx)
        self._took_up_first = round_idx == 0
        self.args.round_idx = self._sync_idx = round_idx
        # FedML chooses the clients of a round before it counts on.
        chosen_in = max(round_idx - 1, 0)
        self.client_id_list_in_this_round = self.aggregator.client_selection(
            chosen_in, self.client_real_ids, self.args.client_num_per_round
        )
        self.data_silo_index_list = self.aggregator.data_silo_selection(
            chosen_in, self.args.client_num_in_total, len(self.client_id_list_in_this_round)
        )
        self._global = _Global(round_idx, digest)
        self.is_initialized = True

    def _take_up_global(self, round_idx: int) -> str:
        """Have the latest global model of the chain as our own; returns its digest."""
        answer = self._coordinator.patiently("the latest global model", self._coordinator.global_model)
        if answer is not None and answer.status == 200:
            media_type = answer.headers.get("content-type", "")
            model = decode_model(answer.body, media_type, self.aggregator.get_global_model_params())
            self.aggregator.set_global_model_params(model)
            return digest_of(answer.body)
        if round_idx == 0 and self.settings.global_model == "s3":
            # The chain has none yet, and the first round's models are all that is needed.
            return ""
        reason = "" if answer is None else f" ({answer.code or answer.status})"
        raise FedfabError(f"the chain has no global model{reason} to go on from: begin again with another run_id")

    def _say_round(self, clients: list[Any]) -> None:
        """INIT of the current round to these clients. Said twice, it does no harm: it carries its number.

        After the last round SYNC, as FedML ends a run: an INIT there would begin the run anew at the coordinator. So
        would, of a server that was away, one of the first round, where clients may have trained already.
        """
        goes_on = self._is_past_last() or (self._took_up_first and self.args.round_idx == 0)
        say = self.send_message_sync_model_to_client if goes_on else self.send_message_init_config
        model = self.aggregator.get_global_model_params()
        silos = {int(c): silo for c, silo in zip(self.client_id_list_in_this_round, self.data_silo_index_list)}
        key = url = None
        for client in clients:
            url, key = say(int(client), model, silos.get(int(client), 0), url, key)

    def _ask_online(self, clients: list[Any]) -> None:
        for client in clients:
            self.send_message_check_client_status(int(client), 0)

    # A round.

    def _after_saying(self) -> None:
        """The round was said to its clients: wait for its models, or, after the last, for their ends."""
        if self._is_past_last():
            self._await_ends()
            return
        round_idx = int(self.args.round_idx)
        if self._watch is not None:
            self._watch.stop()
        self._watch = RoundWatch(
            self._coordinator,
            round_idx,
            stale_round_id=self._stale_round_id,
            like=self.aggregator.get_global_model_params,
            any_kind=self._takes_any(),
            on_closed=lambda closed, arrivals: self._post(lambda: self._aggregate(closed, arrivals)),
            on_lost=lambda: self._post(lambda: self._say_again(round_idx)),
            on_failure=lambda error: self._post(lambda: _raise(error)),
        )
        self._watch.start()

    def _say_again(self, round_idx: int) -> None:
        if round_idx == self.args.round_idx and not self._is_past_last():
            self._say_round(self.client_id_list_in_this_round)

    def _aggregate(self, closed: ClosedRound, arrivals: list[Arrival]) -> None:
        """FedML's own end of a round, over the models that are there."""
        if closed.round_idx != self.args.round_idx or self._is_past_last():
            return
        if closed.missing:
            LOG.warning("round %s: over without clients %s", closed.round_idx, list(closed.missing))
        self._closed, self._sync_idx = closed, closed.round_idx + 1
        order = {int(client): place for place, client in enumerate(self.client_real_ids)}
        arrivals = sorted(arrivals, key=lambda arrival: order.get(arrival.client, len(order)))
        began = time.monotonic()
        # FedML looks up the clients of the models in this list.
        self.client_id_list_in_this_round = [arrival.client for arrival in arrivals]
        self.aggregator.expect(len(arrivals))
        for arrival in arrivals:
            message = Message(SEND_MODEL, arrival.client, self.server_id)
            message.add_params(MyMessage.MSG_ARG_KEY_MODEL_PARAMS, arrival.model)
            message.add_params(MyMessage.MSG_ARG_KEY_NUM_SAMPLES, arrival.num_samples)
            super().handle_message_receive_model_from_client(message)
        LOG.info(
            "round %s: %s models aggregated and handed over in %.2f s",
            closed.round_idx,
            len(arrivals),
            time.monotonic() - began,
        )
        self._after_saying()

    def _prepare(self, message: Any, round_idx: int) -> None:
        fields = message.get_params()
        model = fields[MyMessage.MSG_ARG_KEY_MODEL_PARAMS]
        current = self._global
        if current is None or current.round_idx != round_idx:
            current = self._global = self._hand_over(model, round_idx)
        fields[ROUND_IDX] = int(round_idx)
        fields[SERVER_LIFE] = self._life
        if self.settings.global_model == "chain":
            del fields[MyMessage.MSG_ARG_KEY_MODEL_PARAMS]
            fields[GLOBAL_DIGEST] = current.digest
            fields[GLOBAL_URL] = self._coordinator.global_url()
        elif current.adopted is not None:
            fields[MyMessage.MSG_ARG_KEY_MODEL_PARAMS] = current.adopted

    def _hand_over(self, model: Model, round_idx: int) -> _Global:
        """Have the chain keep the model that a round starts from."""
        encoded = encode_model(model, self.settings.encoding)
        if round_idx == 0:
            if self.settings.global_model == "chain":
                return self._put_global(encoded, 0, None)
            return _Global(0, encoded.digest)
        closed = self._closed
        if closed is None or closed.round_idx != round_idx - 1:
            raise FedfabError(f"round {round_idx} has no round before it that was aggregated")
        return self._put_global(encoded, round_idx, closed.round_id)

    def _put_global(self, encoded: EncodedModel, round_idx: int, round_id: str | None) -> _Global:
        answer = self._coordinator.put_global(encoded.data, encoded.media_type, round_id, self.aggregator.accuracy)
        if answer.status in (200, 201):
            return _Global(round_idx, encoded.digest)
        if answer.code != "model_conflict":
            raise refusal("the global model", answer)
        # A server before this one came so far and no further: what is on the chain stays.
        LOG.warning("round %s has another global model on the chain already: going on from that one", round_id)
        latest = self._coordinator.patiently("the latest global model", self._coordinator.global_model)
        if latest is None or latest.status != 200:
            raise refusal("the global model", answer)
        media_type = latest.headers.get("content-type", "")
        model = decode_model(latest.body, media_type, self.aggregator.get_global_model_params())
        self.aggregator.set_global_model_params(model)
        return _Global(round_idx, digest_of(latest.body), model)

    # Ending.

    def _is_past_last(self) -> bool:
        return bool(self.args.round_idx >= self.round_num)

    def _await_ends(self) -> None:
        members = {int(client) for client in self.client_id_list_in_this_round}
        for client in self.client_real_ids:
            if int(client) not in members:
                # FedML's last SYNC goes to the clients of the last round alone.
                self.send_message_finish(int(client), 0)
        if not self._unfinished():
            self._end()
            return
        timer = threading.Timer(self.settings.finish_wait_s, lambda: self._post(self._end))
        timer.daemon = True
        timer.start()

    def _unfinished(self) -> list[int]:
        return [int(c) for c in self.client_real_ids if not self.client_finished_mapping.get(str(c), False)]

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        left = self._unfinished()
        if left:
            LOG.warning("ending without word from clients %s", left)
        mlops.stop_sys_perf()
        if self.is_main_process():
            mlops.log_aggregation_finished_status()
        self.finish()

    # Little things.

    def _note_step(self, message: Any) -> None:
        LOG.debug("client %s said message type %s", message.get_sender_id(), message.get_type())

    def _refuse_model(self, message: Any) -> None:
        LOG.error(
            "client %s sent its model to the server, not the chain: it lacks the plug-in or its fedfab_args; ignored",
            message.get_sender_id(),
        )

    def _idle(self) -> None:
        """Nothing has come for a while: before the first round somebody may have missed the question."""
        if self.client_id_list_in_this_round is not None and not self.is_initialized:
            self._tell_awaited()
            self._ask_online(self._offline())

    def _tell_awaited(self) -> None:
        if self._offline():
            LOG.info("waiting for clients %s to come online", self._offline())

    def _offline(self) -> list[int]:
        members = self.client_id_list_in_this_round
        return [int(c) for c in members if not self.client_online_mapping.get(str(c), False)]

    def _post(self, work: Callable[[], None]) -> None:
        self.com_manager.post(work)


def _raise(error: BaseException) -> None:
    raise error
