"""A node's connection to the broker: the only module that knows paho.

The network has a thread of its own, so that a long training or an upload never keeps it from answering the broker.
(FedML trains in the thread that serves the connection; a training longer than the keep-alive costs it the connection.)
"""

from __future__ import annotations

import socket
import ssl
import threading
import uuid
from dataclasses import dataclass, field
from typing import Any, Callable, Sequence

import paho.mqtt.client as mqtt

from .errors import FedfabError, SettingsError
from .log import LOG

_SUBSCRIBE_QOS = 2
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10
_REFUSALS = {
    1: "it does not speak MQTT 3.1.1",
    2: "it does not like our client id",
    3: "it is not available",
    4: "bad user name or password: see MQTT_USER and MQTT_PWD",
    5: "not authorised: see MQTT_USER and MQTT_PWD, and the broker's access list",
}


_REFUSED_SUBSCRIPTION = 0x80


@dataclass(frozen=True)
class Tls:
    """How TLS is spoken; the broker's name is always compared with its certificate."""

    ca_file: str = ""
    """"" for the authorities that the system trusts."""
    cert_file: str = ""
    key_file: str = ""

    def context(self) -> ssl.SSLContext:
        """What Python needs for it. Raises ``SettingsError`` for files that are no certificates, or no key of one."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file, password=_no_password)
        except (OSError, ValueError) as error:
            files = ", ".join(file for file in (self.ca_file, self.cert_file, self.key_file) if file)
            raise SettingsError(f"{files} cannot be used for TLS with the broker: {error}") from error
        return context


def _no_password() -> str:
    """In place of Python's question on the terminal, which nobody would answer."""
    raise ValueError("the key is locked by a password: write it without one")


@dataclass(frozen=True)
class BrokerOptions:
    """Where the broker is, and who we are there."""

    host: str
    port: int
    keepalive_s: int
    name: str
    """Start of the client id; random digits follow, as FedML has it."""
    topics: tuple[str, ...]
    last_will: tuple[str, str]
    """Topic and payload."""
    user: str = ""
    password: str = field(default="", repr=False)
    tls: Tls | None = None


class Broker:
    """One connection, made again whenever it breaks.

    ``on_message(topic, payload)`` and ``on_ready()`` (after each connection, when the broker has taken the
    subscriptions) are called in the network's thread and must not block. What is published while there is no connection
    goes out afterwards.
    """

    def __init__(
        self,
        options: BrokerOptions,
        *,
        on_message: Callable[[str, bytes], None],
        on_ready: Callable[[], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._options = options
        self._on_message = on_message
        self._on_ready = on_ready
        self._on_failure = on_failure
        self._closing = threading.Event()
        self._acks = _Acks()
        self._client: mqtt.Client | None = None

    def open(self) -> None:
        """Connect; waits for a broker that is not there yet, and says so."""
        options = self._options
        client = self._client = mqtt.Client(client_id=f"{options.name}_{uuid.uuid4().hex}", clean_session=True)
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_subscribe = self._guarded(lambda _c, _u, _mid, granted: self._subscribed(granted))
        client.on_message = self._guarded(lambda _c, _u, message: self._received(message))
        client.on_publish = lambda _c, _u, mid: self._acks.acknowledged(mid)
        client.on_socket_open = lambda _c, _u, opened: _no_delay(opened)
        client.reconnect_delay_set(min_delay=1, max_delay=_LONGEST_PAUSE_S)
        if options.user:
            client.username_pw_set(options.user, options.password)
        if options.tls is not None:
            client.tls_set_context(options.tls.context())
        # Unlike FedML's, not retained: whoever subscribes later is not to take an old end for a new one.
        topic, payload = options.last_will
        client.will_set(topic, payload=payload, qos=2, retain=False)
        self._first_connection(client)
        client.loop_start()

    def publish(self, topic: str, payload: str, qos: int) -> None:
        """Publish, not retained. Returns at once; see ``flush``."""
        if self._client is None or self._closing.is_set():
            LOG.warning("not published on %s: the connection is closed", topic)
            return
        info = self._client.publish(topic, payload=payload.encode("utf-8"), qos=qos, retain=False)
        self._acks.sent(info.mid)

    def publish_last_will(self) -> None:
        """Say what the broker would say if the connection broke."""
        topic, payload = self._options.last_will
        self.publish(topic, payload, 2)

    def flush(self, timeout_s: float) -> bool:
        """Wait until the broker has acknowledged all that was published; False when it has not within the time."""
        return self._acks.wait_all(timeout_s)

    def close(self) -> None:
        """Disconnect properly, so that the last will is not published. May be called twice."""
        self._closing.set()
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _first_connection(self, client: mqtt.Client) -> None:
        options, pause_s = self._options, _FIRST_PAUSE_S
        while True:
            try:
                client.connect(options.host, options.port, options.keepalive_s)
            except ssl.SSLCertVerificationError as error:
                raise FedfabError(
                    f"the broker at {options.host}:{options.port} cannot be trusted ({error.verify_message}): "
                    "write its authority's certificates as fedfab_args.mqtt_ca_file, and as BROKER_HOST the name that "
                    "is in its certificate"
                ) from error
            except OSError as error:
                reason = _reason(error)
                LOG.warning("waiting for the broker at %s:%s (%s)", options.host, options.port, reason)
                self._closing.wait(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            else:
                return

    def _connected(self, client: mqtt.Client, _userdata: Any, _flags: Any, code: int) -> None:
        if code != 0:
            LOG.error("the broker refuses the connection: %s", _REFUSALS.get(code, f"code {code}"))
            return
        LOG.info("connected to the broker at %s:%s", self._options.host, self._options.port)
        client.subscribe([(topic, _SUBSCRIBE_QOS) for topic in self._options.topics])

    def _subscribed(self, granted: Sequence[int]) -> None:
        """Without its topics a node would wait for ever, and nobody would know why."""
        refused = [topic for topic, qos in zip(self._options.topics, granted) if qos >= _REFUSED_SUBSCRIPTION]
        if refused:
            who = repr(self._options.user) if self._options.user else "a node without user name"
            raise FedfabError(
                f"the broker refuses the subscription to {', '.join(refused)}: its access list must let {who} read "
                "there; or MQTT_USER is that of another node"
            )
        self._on_ready()

    def _disconnected(self, _client: mqtt.Client, _userdata: Any, code: int) -> None:
        if not self._closing.is_set():
            LOG.warning("the connection to the broker broke (%s): connecting again", mqtt.error_string(code))

    def _received(self, message: mqtt.MQTTMessage) -> None:
        # A retained message is an old one; FedML passes over it too.
        if not message.retain:
            self._on_message(message.topic, bytes(message.payload))

    def _guarded(self, handler: Callable[..., None]) -> Callable[..., None]:
        """An error in paho's thread would end it without a word: hand it to whoever waits."""

        def guarded(*arguments: Any) -> None:
            try:
                handler(*arguments)
            except Exception as error:
                self._on_failure(error)

        return guarded


class _Acks:
    """Which publications the broker has not acknowledged yet.

    paho calls ``on_publish`` while it holds the lock that ``publish`` needs: so nothing is done under our own lock but
    sets.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: set[int] = set()
        self._early: set[int] = set()

    def sent(self, mid: int) -> None:
        with self._changed:
            if mid in self._early:
                self._early.discard(mid)
            else:
                self._waiting.add(mid)

    def acknowledged(self, mid: int) -> None:
        with self._changed:
            if mid in self._waiting:
                self._waiting.discard(mid)
                self._changed.notify_all()
            else:
                self._early.add(mid)

    def wait_all(self, timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, timeout_s)


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"{error.reason or error}: does it speak TLS on this port?"
    return error.strerror or str(error)


def _no_delay(opened: Any) -> None:
    """Without this a SEND waits up to 40 ms for the acknowledgement of what came before it (docs/protocol.md)."""
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
