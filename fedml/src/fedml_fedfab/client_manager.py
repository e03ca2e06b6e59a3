"""FedML's client, with its models going by the coordinator onto the chain."""

from __future__ import annotations

import time
from typing import Any

from fedml import mlops
from fedml.cross_silo.client.fedml_client_master_manager import ClientMasterManager
from fedml.cross_silo.client.message_define import MyMessage

from .admission import Admission, Mailbox, Place, Submission
from .coordinator import UnreachableError, refusal
from .errors import FedfabError, ModelFormatError
from .log import LOG
from .messages import (
    FINISH,
    GLOBAL_DIGEST,
    INIT,
    ONLINE,
    SERVER_LIFE,
    SYNC,
    Fields,
    decode_start,
    encode_ready,
    encode_send,
    round_of,
)
from .model_format import Model, decode_model, digest_of, encode_model
from .node import FedfabNode

_MODEL_PAUSE_S = 0.2
_LONGEST_MODEL_PAUSE_S = 5.0
_TELL_EVERY_S = 15.0
# A client that has heard nothing this often (half a minute each) asks the coordinator whether the run is over.
_QUIET_TIMES = 2


class FedfabClientMasterManager(FedfabNode, ClientMasterManager):
    """Trains as FedML does; then READY, START, upload, SEND."""

    def __init__(
        self,
        args: Any,
        trainer_dist_adapter: Any,
        comm: Any = None,
        rank: int = 0,
        size: int = 0,
        backend: str = "MQTT_S3",
    ) -> None:
        super().__init__(args, trainer_dist_adapter, comm, rank, size, backend)
        settings = self.settings
        self._coordinator = self.new_coordinator()
        self._mailbox = Mailbox()
        self._place: Place | None = None
        self._quiet = 0
        self._finished = False
        self._admission = Admission(
            self._mailbox,
            self._coordinator,
            publish_ready=self._publish_ready,
            publish_send=self._publish_send,
            ready_every_s=settings.ready_every_s,
            on_waiting=self._hear_of_end,
        )
        self.com_manager.on_arrival = self._arrived
        self.com_manager.on_connected = self._connected
        self.com_manager.on_idle = self._idle

    def register_message_receive_handlers(self) -> None:
        """FedML's, and START: without a handler for each type that travels FedML's loop would end."""
        super().register_message_receive_handlers()
        for kind in (self.settings.types.ready, self.settings.types.start, self.settings.types.send):
            self.register_message_receive_handler(kind, lambda _message: None)

    def handle_message_init(self, msg_params: Any) -> None:
        """INIT: the first round, or, in mid-run, the round that the run is in."""
        place = self._enter(msg_params)
        if place is None:
            return
        if place.round_idx:
            # FedML's own handler would call this round 0.
            self.is_inited = True
            self.round_idx = place.round_idx
            self.report_training_status(MyMessage.MSG_MLOPS_CLIENT_STATUS_TRAINING)
            super().handle_message_receive_model_from_server(msg_params)
            return
        self.is_inited = False
        super().handle_message_init(msg_params)

    def handle_message_receive_model_from_server(self, msg_params: Any) -> None:
        """SYNC: the next round, or the end."""
        place = self._enter(msg_params)
        if place is None:
            return
        if place.round_idx is not None:
            self.round_idx = place.round_idx
        if not self.is_inited and self.round_idx < self.num_rounds:
            # A server that came back in the first round says SYNC, to whom it said INIT before.
            self.is_inited = True
            self.report_training_status(MyMessage.MSG_MLOPS_CLIENT_STATUS_TRAINING)
        super().handle_message_receive_model_from_server(msg_params)

    def send_model_to_server(self, receive_id: int, weights: Model, local_sample_num: Any) -> None:
        """In place of FedML's: the model goes by HTTP to the chain, when it is this client's turn."""
        if not self.is_main_process():
            return
        mlops.event("comm_c2s", event_started=True, event_value=str(self.round_idx))
        model = encode_model(weights, self.settings.encoding)
        LOG.info("round %s: trained; a model of %s bytes waits for its turn", self.round_idx, len(model.data))
        submission = Submission(self._place, self.round_idx, model, sample_number(local_sample_num))
        self._admission.deliver(submission)

    def send_client_status(self, receive_id: int, status: str = ONLINE) -> None:
        """ONLINE or FINISHED, to the server of the configuration. (FedML's says it to 0.)."""
        super().send_client_status(self.server_id, status)

    def finish(self) -> None:
        """The end, once."""
        self._finished = True
        super().finish()

    # In the network's thread.

    def _connected(self) -> bool:
        """The broker keeps nothing for a client that is away: say ONLINE again, and READY where START is awaited.

        Here, because the main thread may be busy for long; the server answers ONLINE with the round that the run is in.
        """
        if not self.has_sent_online_msg:
            return True
        self.send_client_status(self.server_id)
        self._mailbox.connected_again()
        return False

    def _arrived(self, fields: Fields) -> bool:
        kind = fields["msg_type"]
        if kind == self.settings.types.start:
            start = decode_start(fields)
            if start is None:
                LOG.warning("passed over a START that lacks a field")
            else:
                self._mailbox.put_start(start)
            return False
        if kind in (INIT, SYNC):
            return self._mailbox.advance(_place_of(fields), is_init=kind == INIT)
        if kind == FINISH:
            self._mailbox.end()
        return True

    # In the main thread.

    def _enter(self, message: Any) -> Place | None:
        """Where a message leads, with its model in it; None where the run has gone on since it came."""
        self._quiet = 0
        place = _place_of(message.get_params())
        if place.round_idx is None:
            LOG.warning("the server says no round_idx: is the plug-in active there too?")
        if self._mailbox.is_over(place):
            LOG.info("passed over round %s: the run has gone on", place.round_idx)
            return None
        self._place = place
        digest = message.get(GLOBAL_DIGEST)
        if digest is None:
            if message.get(MyMessage.MSG_ARG_KEY_MODEL_PARAMS) is None:
                raise FedfabError("the server sent no model and no digest of one: it needs the plug-in too")
            return place
        model = self._global_model(str(digest).lower(), place)
        if model is None:
            return None
        message.add_params(MyMessage.MSG_ARG_KEY_MODEL_PARAMS, model)
        return place

    def _global_model(self, digest: str, place: Place) -> Model | None:
        """The global model with this digest, from the coordinator; None where the run goes on before it is there."""
        pause_s, told_at, known = _MODEL_PAUSE_S, time.monotonic(), ""
        while not self._mailbox.is_over(place):
            reason = "another one is the latest"
            try:
                answer = self._coordinator.global_model(known)
            except UnreachableError as error:
                reason = str(error)
            else:
                if answer.status == 200 and digest_of(answer.body) == digest:
                    return self._decoded(answer.body, answer.headers.get("content-type", ""))
                if answer.status not in (200, 304, 404):
                    raise refusal("the global model", answer)
                known = answer.headers.get("etag", "") if answer.status == 200 else known
                reason = answer.code or reason
            if time.monotonic() - told_at >= _TELL_EVERY_S:
                LOG.warning("round %s: waiting for its global model (%s)", place.round_idx, reason)
                told_at = time.monotonic()
                self._hear_of_end()
            self._mailbox.pause(place, pause_s)
            pause_s = min(2 * pause_s, _LONGEST_MODEL_PAUSE_S)
        return None

    def _decoded(self, data: bytes, media_type: str) -> Model:
        try:
            return decode_model(data, media_type, like=self.trainer_dist_adapter.trainer.trainer.get_model_params())
        except ModelFormatError as error:
            raise ModelFormatError(f"the global model cannot be read: {error}") from error

    def _publish_ready(self, submission: Submission) -> None:
        fields = encode_ready(
            self.settings.types,
            client=self.client_real_id,
            server=self.server_id,
            round_idx=submission.round_idx,
            num_samples=submission.num_samples,
        )
        self.com_manager.send_fields(fields, self.server_id, qos=1)

    def _publish_send(self, submission: Submission) -> None:
        fields = encode_send(
            self.settings.types,
            client=self.client_real_id,
            server=self.server_id,
            round_idx=submission.round_idx,
            digest=submission.model.digest,
        )
        self.com_manager.send_fields(fields, self.server_id, qos=1)

    def _idle(self) -> None:
        """Nothing has come for a while: the end may have been missed, also by a client that was in no round yet."""
        self._quiet += 1
        if self._finished or self._quiet < _QUIET_TIMES:
            return
        if not self._mailbox.ended:
            self._hear_of_end()
        if self._mailbox.ended:
            self.cleanup()
        elif self._place is None:
            LOG.info("waiting for the server: this client is in no round yet")
        else:
            LOG.info("waiting for the server: round %s is done here", self._place.round_idx)

    def _hear_of_end(self) -> None:
        """Ask the coordinator whether the run is over, since nobody else may be left to say so."""
        try:
            phase = self._coordinator.phase()
        except FedfabError as error:
            LOG.info("the coordinator does not say whether the run is over (%s)", error)
            return
        if phase == "finished":
            LOG.warning("the run is over, as the coordinator says; the server's word of it was missed")
            self._mailbox.end()


def sample_number(value: Any) -> int | None:
    """FedML's number of samples as the whole number that a receipt holds. Raises ``FedfabError`` for part of one."""
    if value is None:
        return None
    number = int(value)
    if number != value or number < 0:
        raise FedfabError(f"the sample number {value!r} is no whole number from 0 on: the chain keeps whole ones")
    return number


def _place_of(fields: Fields) -> Place:
    life = fields.get(SERVER_LIFE)
    return Place(life if isinstance(life, str) else None, round_of(fields))
