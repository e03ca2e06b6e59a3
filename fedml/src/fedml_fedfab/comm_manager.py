"""FedML's communication manager as the plug-in needs it: MQTT without a cloud, and without S3 unless it is asked for.

It takes the place of FedML's ``MqttS3MultiClientsCommManager``, which logs whole messages (START has a token in it),
needs S3 settings, handles messages in the thread that serves the connection, and closes it before its last message is
out. Same topics, same payloads, same handlers.
"""

from __future__ import annotations

import json
import queue
import uuid
from dataclasses import dataclass
from typing import Any, Callable, Union

from .broker import Broker, BrokerOptions, Tls
from .errors import SettingsError
from .log import LOG
from .messages import CONNECTION_READY, Fields, MessageTypes, comes_from_server, decode_object

_MODEL, _URL, _KEY = "model_params", "model_params_url", "model_params_key"
_FLUSH_S = 10.0
_LAST_WILL_FLUSH_S = 2.0
_IDLE_S = 30.0


@dataclass(frozen=True)
class Node:
    """Who this node is in its run."""

    run: str
    is_server: bool
    node: int
    server: int
    types: MessageTypes


class NoStorage:
    """What stands where FedML has its S3 storage, when no model travels by it."""

    def write_model(self, _key: str, _model: Any) -> str:
        """Never called: with ``global_model: chain`` no message has a model in it."""
        raise RuntimeError("no storage: with global_model: chain models do not travel in messages")

    def read_model(self, key: str) -> Any:
        """Called where the server uses S3 and this node was told not to."""
        raise RuntimeError(
            f"the server sent a model by S3 ({key}), but this node has global_model: chain: write the same on both"
        )


@dataclass(frozen=True)
class _Failure:
    error: BaseException


_Item = Union[Fields, _Failure, Callable[[], None], None]


class FedfabCommManager:
    """Messages in and out, for FedML's managers.

    Handlers run one after the other in the thread that calls ``handle_receive_message``, which is the main one.
    """

    def __init__(self, node: Node, options: BrokerOptions, storage: Any, topic_to: Callable[[int], str]) -> None:
        self._node = node
        self._storage = storage
        self._topic_to = topic_to
        self._observers: list[Any] = []
        self._inbox: queue.Queue[_Item] = queue.Queue()
        self._stopped = False
        self.on_arrival: Callable[[Fields], bool] = lambda _fields: True
        """Called in the network's thread with each message; False: it is dealt with and goes no further."""
        self.on_connected: Callable[[], bool] = lambda: True
        """Called in the network's thread after each connection; False: FedML's manager need not be told."""
        self.on_idle: Callable[[], None] = lambda: None
        """Called in the main thread when nothing has come for half a minute."""
        self._broker = Broker(
            options,
            on_message=self._arrived,
            on_ready=self._connected,
            on_failure=lambda error: self._inbox.put(_Failure(error)),
        )

    # FedML's interface (core/distributed/communication/base_com_manager.py).

    def add_observer(self, observer: Any) -> None:
        """Whoever is to be told of messages: FedML's manager."""
        self._observers.append(observer)

    def remove_observer(self, observer: Any) -> None:
        """Take one away again."""
        self._observers.remove(observer)

    def send_message(self, message: Any) -> None:
        """Publish one of FedML's messages; a model in it goes to the storage first, and its key into the message."""
        payload = message.get_params()
        receiver = int(message.get_receiver_id())
        if payload.get(_MODEL, "") != "":
            self._store(payload, receiver)
        self.send_fields(payload, receiver)

    def send_fields(self, fields: Fields, receiver: int, qos: int = 2) -> None:
        """Publish a message that is JSON already."""
        self._broker.publish(self._topic_to(receiver), json.dumps(fields, default=_plain), qos)

    def send_message_json(self, topic: str, payload: str) -> None:
        """What FedML's tracking publishes on topics of its own."""
        self._broker.publish(topic, payload, 2)

    def handle_receive_message(self) -> None:
        """Connect, and handle messages until ``stop_receive_message``. An error of a handler comes out here."""
        self._broker.open()
        try:
            while not self._stopped:
                self._handle_next()
        except BaseException:
            # Whoever ends like this has not left in peace, and the others are not to wait for it.
            self._broker.publish_last_will()
            self._broker.flush(_LAST_WILL_FLUSH_S)
            raise
        finally:
            self._broker.close()

    def stop_receive_message(self) -> None:
        """End, after the broker has taken what was published. (FedML's own loses the last message.)."""
        if self._stopped:
            return
        if not self._broker.flush(_FLUSH_S):
            LOG.warning("the broker has not acknowledged the last messages within %s s", _FLUSH_S)
        self._stopped = True
        self._inbox.put(None)

    def post(self, work: Callable[[], None]) -> None:
        """Have something done in the main thread, after what is there already. From any thread."""
        self._inbox.put(work)

    def _handle_next(self) -> None:
        try:
            item = self._inbox.get(timeout=_IDLE_S)
        except queue.Empty:
            self.on_idle()
            return
        if isinstance(item, _Failure):
            raise item.error
        if isinstance(item, dict):
            self._notify(item)
        elif item is not None:
            item()

    def _connected(self) -> None:
        if self.on_connected():
            self._inbox.put({"msg_type": CONNECTION_READY, "sender": 0, "receiver": 0})

    def _arrived(self, topic: str, payload: bytes) -> None:
        fields = decode_object(payload)
        if fields is None:
            LOG.warning("passed over what came on %s: it is no message of FedML's", topic)
            return
        kind = int(fields["msg_type"])
        # A topic may also be that of another node of another run; a type that FedML has no handler for would end it.
        if comes_from_server(kind, self._node.types) is not (not self._node.is_server):
            LOG.debug("passed over a message of type %s on %s", kind, topic)
            return
        if self.on_arrival(fields):
            self._inbox.put(fields)

    def _notify(self, fields: Fields) -> None:
        from fedml.core.distributed.communication.message import Message

        key = fields.get(_MODEL)
        if isinstance(key, str) and key.strip():
            fields = {**fields, _MODEL: self._storage.read_model(key.strip()), _KEY: key.strip()}
        message = Message()
        message.init_from_json_object(fields)
        for observer in list(self._observers):
            observer.receive_message(int(fields["msg_type"]), message)

    def _store(self, payload: Fields, receiver: int) -> None:
        """As FedML's does it: one upload for all receivers, whose messages then have its key and URL."""
        key, url = payload.get(_KEY, ""), payload.get(_URL, "")
        if not url:
            key = f"{self._topic_to(receiver)}_{uuid.uuid4()}"
            url = self._storage.write_model(key, payload[_MODEL])
        payload.update({_MODEL: key, _KEY: key, _URL: url})


def new_comm_manager(
    args: Any, node: Node, receivers: list[int], storage: Any | None, tls: Tls | None = None
) -> FedfabCommManager:
    """The manager of a node. ``receivers``: at the server the clients, at a client itself."""
    from .messages import CLIENT_LAST_WILL, SERVER_LAST_WILL, client_topic, last_will, server_topic

    config = args.customized_training_mqtt_config
    if not isinstance(config, dict) or not config.get("BROKER_HOST"):
        raise SettingsError(
            "customized_training_mqtt_config lacks the broker: write BROKER_HOST, BROKER_PORT, MQTT_USER, MQTT_PWD"
        )

    def topic_to(receiver: int) -> str:
        if node.is_server:
            return server_topic(node.run, node.server, receiver)
        return client_topic(node.run, node.node)

    if node.is_server:
        topics = [client_topic(node.run, client) for client in receivers]
    else:
        topics = [server_topic(node.run, node.server, node.node)]
    options = BrokerOptions(
        host=str(config["BROKER_HOST"]),
        port=int(config.get("BROKER_PORT") or (1883 if tls is None else 8883)),
        keepalive_s=int(config.get("MQTT_KEEPALIVE") or 60),
        user=str(config.get("MQTT_USER") or ""),
        password=str(config.get("MQTT_PWD") or ""),
        name=f"FedML_CS_{node.run}_{node.node}",
        topics=tuple(dict.fromkeys(topics)),
        tls=tls,
        last_will=(SERVER_LAST_WILL if node.is_server else CLIENT_LAST_WILL, last_will(node.node, node.run)),
    )
    return FedfabCommManager(node, options, storage or NoStorage(), topic_to)


def _plain(value: Any) -> Any:
    """Numbers of numpy, which FedML's choice of clients gives, as JSON's own."""
    item = getattr(value, "item", None)
    if item is None:
        raise TypeError(f"{type(value).__name__} cannot be sent in a message")
    return item()
