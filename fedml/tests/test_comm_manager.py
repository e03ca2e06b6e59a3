"""The connection to the broker, on a real Mosquitto: nothing is lost at the end, all is there again after a break."""

from __future__ import annotations

import json
import queue
import socket
import threading
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from conftest import Authority, Mosquitto, needs_mosquitto, needs_openssl

from fedml_fedfab import comm_manager as module
from fedml_fedfab.broker import Tls
from fedml_fedfab.comm_manager import FedfabCommManager, Node, NoStorage, new_comm_manager
from fedml_fedfab.errors import FedfabError, SettingsError
from fedml_fedfab.messages import MessageTypes
from fedml_fedfab.node import tls_of
from fedml_fedfab.settings import read_settings

pytestmark = needs_mosquitto

WITHIN_S = 30


class Listener:
    """Somebody else at the broker."""

    def __init__(self, port: int, *topics: str) -> None:
        self.heard: queue.Queue[tuple[str, Any]] = queue.Queue()
        there = threading.Event()
        self._client = mqtt.Client(clean_session=True)
        self._client.on_connect = lambda client, *_: client.subscribe([(topic, 2) for topic in topics])
        self._client.on_subscribe = lambda *_: there.set()
        self._client.on_message = lambda _c, _u, m: self.heard.put((m.topic, json.loads(m.payload)))
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert there.wait(WITHIN_S)

    def say(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload, qos=2).wait_for_publish(WITHIN_S)

    def next(self) -> tuple[str, Any]:
        return self.heard.get(timeout=WITHIN_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Running:
    """A manager whose loop runs in a thread; what it hands on is kept."""

    def __init__(self, manager: FedfabCommManager) -> None:
        self.manager = manager
        self.heard: queue.Queue[tuple[int, Any]] = queue.Queue()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        # FedML's `Message` is not needed for this: what is handed on is noted as it is.
        self.manager._notify = lambda fields: self.heard.put((int(fields["msg_type"]), fields))  # type: ignore[method-assign]
        self._thread.start()
        assert self.heard.get(timeout=WITHIN_S)[0] == 0

    def _run(self) -> None:
        try:
            self.manager.handle_receive_message()
        except BaseException as error:
            self.error = error

    def next(self) -> tuple[int, Any]:
        return self.heard.get(timeout=WITHIN_S)

    def join(self) -> None:
        self._thread.join(WITHIN_S)
        assert not self._thread.is_alive()


def new_manager(port: int, *, node: int = 3, run: str = "r", tls: Tls | None = None) -> FedfabCommManager:
    config = {"BROKER_HOST": "127.0.0.1", "BROKER_PORT": port, "MQTT_USER": "", "MQTT_PWD": "", "MQTT_KEEPALIVE": 60}
    args = Namespace(customized_training_mqtt_config=config)
    who = Node(run=run, is_server=node == 0, node=node, server=0, types=MessageTypes())
    return new_comm_manager(args, who, [1, 2, 3] if node == 0 else [node], None, tls)


@pytest.fixture
def running(mosquitto: Mosquitto) -> Iterator[Running]:
    one = Running(new_manager(mosquitto.port))
    one.start()
    yield one
    one.manager.stop_receive_message()
    one.join()


@pytest.fixture
def listener(mosquitto: Mosquitto) -> Iterator[Listener]:
    other = Listener(mosquitto.port, "fedml_r_3", "flclient/last_will_msg")
    yield other
    other.close()


def said(kind: int, sender: int = 0, receiver: int = 3, **rest: Any) -> bytes:
    return json.dumps({"msg_type": kind, "sender": sender, "receiver": receiver, **rest}).encode()


def test_messages_both_ways(running: Running, listener: Listener) -> None:
    running.manager.send_fields({"msg_type": 9, "sender": 3, "receiver": 0}, 0)
    assert listener.next() == ("fedml_r_3", {"msg_type": 9, "sender": 3, "receiver": 0})
    listener.say("fedml_r_0_3", said(2, round_idx=1))
    assert running.next() == (2, {"msg_type": 2, "sender": 0, "receiver": 3, "round_idx": 1})


def test_what_is_no_message_or_not_for_a_client_is_passed_over(running: Running, listener: Listener) -> None:
    for payload in (b"\xff", b"[]", b"{}", said(5), said(9), said(99)):
        listener.say("fedml_r_0_3", payload)
    listener.say("fedml_r_0_3", said(7))
    assert running.next()[0] == 7


def test_the_last_message_goes_out_and_no_last_will_follows(running: Running, listener: Listener) -> None:
    running.manager.send_fields({"msg_type": 5, "sender": 3, "receiver": 0, "client_status": "FINISHED"}, 0)
    running.manager.stop_receive_message()
    # The broker has acknowledged it, before anything is closed.
    assert running.manager._broker.flush(0) is True
    running.join()
    assert listener.next()[1]["client_status"] == "FINISHED"
    # What is said now comes after a last will that the broker would have published.
    listener.say("fedml_r_3", said(4, 3, 0))
    assert listener.next()[1]["msg_type"] == 4


def test_a_node_that_fails_leaves_its_last_will(running: Running, listener: Listener) -> None:
    def fail() -> None:
        raise RuntimeError("broken")

    running.manager.post(fail)
    assert listener.next() == ("flclient/last_will_msg", {"ID": 3, "status": "OFFLINE", "run_id": "r"})
    running.join()
    assert str(running.error) == "broken"


def test_an_error_in_the_network_s_thread_comes_out(running: Running, listener: Listener) -> None:
    def fail(_fields: Any) -> bool:
        raise RuntimeError("broken")

    running.manager.on_arrival = fail
    listener.say("fedml_r_0_3", said(2))
    running.join()
    assert str(running.error) == "broken"


def test_a_broker_that_comes_back(running: Running, mosquitto: Mosquitto) -> None:
    connected: queue.Queue[None] = queue.Queue()

    def on_connected() -> bool:
        connected.put(None)
        return False

    running.manager.on_connected = on_connected
    mosquitto.stop()
    # Said while there is no broker, by whoever does not know.
    running.manager.send_fields({"msg_type": 9, "sender": 3, "receiver": 0}, 0)
    mosquitto.start()
    connected.get(timeout=WITHIN_S)
    other = Listener(mosquitto.port, "fedml_r_3")
    running.manager.send_fields({"msg_type": 11, "sender": 3, "receiver": 0}, 0)
    kinds = [other.next()[1]["msg_type"]]
    if kinds == [9]:
        kinds.append(other.next()[1]["msg_type"])
    assert kinds[-1] == 11
    other.say("fedml_r_0_3", said(2))
    assert running.next()[0] == 2
    other.close()


def test_a_server_hears_all_its_clients(mosquitto: Mosquitto) -> None:
    server = Running(new_manager(mosquitto.port, node=0, run="with_underscores"))
    server.start()
    other = Listener(mosquitto.port, "fedml_with_underscores_0_2")
    for client in (1, 2, 3):
        other.say(f"fedml_with_underscores_{client}", said(9, client, 0))
    assert [server.next()[1]["sender"] for _ in range(3)] == [1, 2, 3]
    server.manager.send_fields({"msg_type": 2, "sender": 0, "receiver": 2}, 2)
    assert other.next()[1]["receiver"] == 2
    server.manager.stop_receive_message()
    server.join()
    other.close()


@pytest.fixture
def tls_broker(tmp_path: Path, authority: Authority) -> Iterator[Mosquitto]:
    """As docs/operations.md wants it beyond one machine: TLS, and certificates of its clients' own."""
    cert, key = authority.issue("broker")
    more = f"cafile {authority.ca}\ncertfile {cert}\nkeyfile {key}\nrequire_certificate true\n"
    broker = Mosquitto(tmp_path, f"{more}use_identity_as_username true\nallow_anonymous false\n")
    broker.start()
    yield broker
    broker.stop()


@needs_openssl
def test_tls_with_a_certificate_of_our_own(tls_broker: Mosquitto, authority: Authority) -> None:
    cert, key = authority.issue("node")
    running = Running(new_manager(tls_broker.port, tls=Tls(str(authority.ca), str(cert), str(key))))
    running.start()
    tls_broker.stop()
    tls_broker.start()
    # The new connection, too.
    assert running.next()[0] == 0
    running.manager.stop_receive_message()
    running.join()


@needs_openssl
def test_a_broker_of_another_authority_is_not_spoken_to(tls_broker: Mosquitto) -> None:
    running = Running(new_manager(tls_broker.port, tls=Tls()))
    with pytest.raises(FedfabError, match=r"cannot be trusted .*fedfab_args\.mqtt_ca_file"):
        running.manager.handle_receive_message()


@needs_openssl
def test_a_broker_of_another_name_is_not_spoken_to(tmp_path: Path, authority: Authority) -> None:
    cert, key = authority.issue("elsewhere", "192.0.2.1")
    broker = Mosquitto(tmp_path, f"certfile {cert}\nkeyfile {key}\nallow_anonymous true\n")
    broker.start()
    running = Running(new_manager(broker.port, tls=Tls(str(authority.ca))))
    with pytest.raises(FedfabError, match="the name that is in its certificate"):
        running.manager.handle_receive_message()
    broker.stop()


@needs_openssl
def test_files_that_are_no_certificates(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")
    with pytest.raises(SettingsError, match=r"bad\.pem cannot be used for TLS with the broker"):
        Tls(str(tmp_path / "bad.pem")).context()
    cert, _ = authority.issue("one")
    _, key = authority.issue("other")
    with pytest.raises(SettingsError, match="cannot be used"):
        Tls(str(authority.ca), str(cert), str(key)).context()


def test_tls_has_a_port_of_its_own() -> None:
    config = {"BROKER_HOST": "127.0.0.1"}
    who = Node("r", False, 1, 0, MessageTypes())
    for tls, port in ((None, 1883), (Tls(), 8883)):
        manager = new_comm_manager(Namespace(customized_training_mqtt_config=config), who, [1], None, tls)
        assert manager._broker._options.port == port


@pytest.mark.parametrize(
    ("section", "tls"),
    [
        ({}, None),
        ({"mqtt_tls": True}, Tls()),
        ({"mqtt_ca_file": __file__}, Tls(__file__)),
        ({"mqtt_cert_file": __file__, "mqtt_key_file": __file__}, Tls("", __file__, __file__)),
    ],
)
def test_what_the_settings_say_of_tls(section: dict[str, Any], tls: Any) -> None:
    assert tls_of(read_settings({"coordinator_url": "http://127.0.0.1:1", **section}, "f", {})) == tls


def refusing_broker() -> tuple[int, threading.Thread]:
    """Takes one connection and refuses its subscription. (Mosquitto's own access list only keeps messages back.)."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listening, listening.accept()[0] as peer:
            peer.recv(4096)
            peer.sendall(b"\x20\x02\x00\x00")
            subscribe = peer.recv(4096)
            peer.sendall(b"\x90\x03" + subscribe[2:4] + b"\x80")
            while peer.recv(4096):
                pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return int(listening.getsockname()[1]), thread


def test_a_subscription_that_is_refused_ends_the_node_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LAST_WILL_FLUSH_S", 0.0)
    port, thread = refusing_broker()
    with pytest.raises(FedfabError, match="refuses the subscription to fedml_r_0_3: its access list must let"):
        new_manager(port).handle_receive_message()
    thread.join(WITHIN_S)


def test_no_model_travels_where_there_is_no_storage() -> None:
    with pytest.raises(RuntimeError, match="models do not travel in messages"):
        NoStorage().write_model("k", {})
    with pytest.raises(RuntimeError, match="write the same on both"):
        NoStorage().read_model("k")


def test_a_configuration_without_broker_says_what_to_write() -> None:
    args = Namespace(customized_training_mqtt_config={"BROKER_PORT": 1})
    with pytest.raises(SettingsError, match="write BROKER_HOST"):
        new_comm_manager(args, Node("r", False, 1, 0, MessageTypes()), [1], None)
