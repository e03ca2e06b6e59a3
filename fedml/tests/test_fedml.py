"""The plug-in in FedML itself: its managers and aggregator, with broker and coordinator played by the test."""

from __future__ import annotations

import json
import logging
import os
import queue
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from conftest import REPOSITORY, Seen, StandIn, json_reply, problem

from fedml_fedfab.install import SUPPORTED, fedml_is_here
from fedml_fedfab.messages import FINISH, INIT, SYNC
from fedml_fedfab.model_format import decode_model, digest_of, encode_model

if not fedml_is_here():
    pytest.skip("FedML is not installed in this environment", allow_module_level=True)

import fedml
import torch
from fedml import cross_silo
from fedml.core import Context
from fedml.core.distributed.communication.message import Message
from fedml.core.dp.fedml_differential_privacy import FedMLDifferentialPrivacy
from fedml.core.mlops import MLOpsStore
from fedml.core.security.fedml_defender import FedMLDefender
from fedml.cross_silo.client import client_initializer
from fedml.cross_silo.client import message_define as client_messages
from fedml.cross_silo.client.fedml_client_master_manager import ClientMasterManager
from fedml.cross_silo.server import message_define as server_messages
from fedml.cross_silo.server import server_initializer
from fedml.cross_silo.server.fedml_aggregator import FedMLAggregator
from fedml.ml.aggregator.default_aggregator import DefaultServerAggregator

from fedml_fedfab.aggregator import FedfabAggregator, accuracy_in
from fedml_fedfab.client_manager import FedfabClientMasterManager
from fedml_fedfab.comm_manager import _plain
from fedml_fedfab.errors import FedfabError, SettingsError
from fedml_fedfab.server_manager import FedfabServerManager

READY, START, SEND, STATUS, CHECK_STATUS = 9, 10, 11, 5, 6
WITHIN_S = 30


class Args:
    """FedML's arguments, as its own class has them: attributes only."""

    def __init__(self, **more: Any) -> None:
        self.__dict__.update(
            run_id="r",
            rank=0,
            role="server",
            client_id_list="[1, 2, 3]",
            client_num_per_round=3,
            client_num_in_total=3,
            comm_round=2,
            scenario="horizontal",
            training_type="cross_silo",
            backend="MQTT_S3",
            federated_optimizer="FedAvg",
            dataset="digits",
            model="lr",
            frequency_of_the_test=1,
            using_mlops=False,
            enable_tracking=False,
            customized_training_mqtt_config={"BROKER_HOST": "127.0.0.1", "BROKER_PORT": 1},
        )
        self.__dict__.update(more)


def weights(value: float) -> OrderedDict[str, Any]:
    return OrderedDict(w=torch.full((2,), value), n=torch.tensor(7))


class Sent:
    """In place of the connection to the broker: keeps what was said, and what is to be done in the main thread."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []
        self.work: queue.Queue[Any] = queue.Queue()
        self.ended = False
        self.on_send: Any = lambda _fields: None

    def send_message(self, message: Any) -> None:
        self.send_fields(message.get_params(), 0)

    def send_fields(self, fields: dict[str, Any], _receiver: int, qos: int = 2) -> None:
        self.said.append(json.loads(json.dumps(fields, default=lambda v: v.tolist() if v.ndim else _plain(v))))
        self.on_send(fields)

    def post(self, work: Any) -> None:
        self.work.put(work)

    def stop_receive_message(self) -> None:
        self.ended = True

    def of(self, kind: int) -> list[dict[str, Any]]:
        return [fields for fields in self.said if fields["msg_type"] == kind]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``fedml.init`` leaves it where nothing is tracked: its cloud is not asked."""
    monkeypatch.setattr(MLOpsStore, "mlops_args", Args())


def test_this_fedml_is_one_of_those_that_are_supported() -> None:
    assert fedml.__version__ in SUPPORTED


@pytest.mark.parametrize("theirs", [client_messages.MyMessage, server_messages.MyMessage], ids=["client", "server"])
def test_names_and_numbers_are_fedml_s_own(theirs: Any) -> None:
    table = json.loads((REPOSITORY / "topics" / "messages.json").read_text())["types"]
    ours = {name: entry["number"] for name, entry in table.items() if not entry.get("settable")}
    found = {name: number for name, number in vars(theirs).items() if name.startswith("MSG_TYPE_")}
    # The server's list is whole; the client's leaves out what it does not say.
    assert found.items() <= ours.items()
    if theirs is server_messages.MyMessage:
        assert found == ours


def test_fedml_s_modules_are_asked_first_and_its_files_are_its_own() -> None:
    for module, name in (
        (server_initializer, "FedMLServerManager"),
        (server_initializer, "FedMLAggregator"),
        (client_initializer, "ClientMasterManager"),
    ):
        assert hasattr(getattr(module, name), "_fedfab"), name
        assert Path(sys.modules[module.__name__].__file__ or "").parent.is_relative_to(Path(fedml.__file__).parent)


SCRIPT = """
import sys
from beside import WORD
from fedml.cross_silo.server import server_initializer
print("told", __name__, sys.argv[1:], WORD, hasattr(server_initializer.FedMLServerManager, "_fedfab"))
"""


@pytest.mark.parametrize("arguments", [["folder/script.py", "--cf", "x"], ["-m", "folder.script", "--cf", "x"]])
def test_a_script_is_run_as_python_runs_it_with_the_plug_in(tmp_path: Path, arguments: list[str]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "script.py").write_text(SCRIPT)
    (folder / "beside.py").write_text('WORD = "beside"\n')
    (tmp_path / "beside.py").write_text('WORD = "here"\n')
    done = subprocess.run(
        [sys.executable, "-B", "-m", "fedml_fedfab", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ":".join(path for path in sys.path if path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    where = "here" if arguments[0] == "-m" else "beside"
    assert f"told __main__ ['--cf', 'x'] {where} True" in done.stdout, done.stderr


def test_what_would_not_pass_through_is_refused_before_it_begins() -> None:
    section = {"coordinator_url": "http://127.0.0.1:1"}
    for made in (cross_silo.Client, cross_silo.Server):
        assert isinstance(made, type)
        with pytest.raises(SettingsError, match="write FedAvg"):
            made(Args(fedfab_args=section, federated_optimizer="LSA"), "cpu", [], None)


def new_aggregator(args: Args, clients: int = 3) -> Any:
    class Mean(DefaultServerAggregator):
        """FedML's, on two numbers, without a test set."""

        def __init__(self) -> None:
            super().__init__(torch.nn.Linear(1, 1), args)
            self.params = weights(0)

        def get_model_params(self) -> Any:
            return self.params

        def set_model_params(self, model_parameters: Any) -> None:
            self.params = model_parameters

        def test(self, test_data: Any, device: Any, args: Any) -> Any:
            return 0.75, 0.1, None, None

        def test_all(self, *_arguments: Any) -> bool:
            return True

    return server_initializer.FedMLAggregator([], [], 3, {}, {}, {}, clients, "cpu", args, Mean())


def test_without_the_section_everything_is_fedml_s() -> None:
    args = Args()
    assert type(new_aggregator(args)) is FedMLAggregator
    assert client_initializer.ClientMasterManager._fedfab is ClientMasterManager


class Coordinated:
    """A coordinator of one run: three clients, whose models are given by the test."""

    def __init__(self, stand_in: StandIn) -> None:
        self.url = stand_in.url
        self.view: Any = None
        self.models: dict[int, Any] = {}
        self.missing: list[int] = []
        self.round_idx = 0
        self.globals: list[tuple[str, bytes]] = []
        self.media_type = ""
        self.defined: list[Any] = []
        self.accuracies: list[str] = []
        self.conflict = False
        stand_in.answer = self._answer

    def _answer(self, seen: Seen) -> Any:
        path = urlsplit(seen.path).path.removeprefix("/v1/runs")
        if seen.method == "POST":
            self.defined.append(json.loads(seen.body))
            return json_reply(201, {})
        if path == "/r/global" and seen.method == "PUT" and self.view is not None and self.view["phase"] == "running":
            return problem(409, "round_conflict")
        if seen.method == "PUT" and self.conflict:
            return problem(409, "model_conflict")
        if seen.method == "PUT":
            self.accuracies.append(urlsplit(seen.path).query)
            self.globals.append((path, seen.body))
            self.media_type = seen.headers["content-type"]
            return json_reply(201, {})
        if path == "/r/global":
            if not self.globals:
                return problem(404, "no_global_model")
            return 200, {"content-type": self.media_type}, self.globals[-1][1]
        return self._of_round(path)

    def _of_round(self, path: str) -> Any:
        if path.endswith("/received"):
            body = {"round_id": f"7{self.round_idx}", "round_idx": self.round_idx, "closed": True}
            have = sorted(self.models)
            return json_reply(200, {**body, "received": not self.missing, "have": have, "missing": self.missing})
        if path.endswith("/models"):
            receipts = [
                {
                    "client_id": str(client),
                    "digest": model.digest,
                    "media_type": model.media_type,
                    "num_samples": samples,
                }
                for client, (model, samples) in self.models.items()
            ]
            return json_reply(200, {"receipts": receipts, "next": None})
        if "/models/" in path:
            model, _ = self.models[int(path.rsplit("/", 1)[1])]
            return 200, {"content-type": model.media_type}, model.data
        return problem(404, "unknown_run") if self.view is None else json_reply(200, self.view)

    def upload(self, **models: tuple[float, int]) -> None:
        self.models = {
            int(name[1:]): (encode_model(weights(value), "safetensors"), samples)
            for name, (value, samples) in models.items()
        }


@pytest.fixture
def coordinated(stand_in: StandIn) -> Coordinated:
    return Coordinated(stand_in)


class Server:
    """FedML's server manager under the plug-in."""

    def __init__(self, coordinated: Coordinated, *, settings: dict[str, Any] | None = None, **more: Any) -> None:
        self.args = Args(fedfab_args={"coordinator_url": coordinated.url, **(settings or {})}, **more)
        self.aggregator = new_aggregator(self.args)
        self.manager = server_initializer.FedMLServerManager(self.args, self.aggregator, None, 0, 3, "MQTT_S3")
        self.sent = self.manager.com_manager = Sent()
        self.manager.register_message_receive_handlers()

    def hears(self, kind: int, sender: int, **fields: Any) -> None:
        message = Message()
        message.init_from_json_object({"msg_type": kind, "sender": sender, "receiver": 0, **fields})
        self.manager.receive_message(kind, message)

    def begin(self) -> None:
        self.hears(0, 0)
        for client in (1, 2, 3):
            self.hears(STATUS, client, client_status="ONLINE")

    def work(self) -> None:
        """What the round's own thread asks the main one to do."""
        self.sent.work.get(timeout=WITHIN_S)()


@pytest.fixture
def server(coordinated: Coordinated) -> Iterator[Server]:
    made = Server(coordinated)
    yield made
    made.manager.finish()


def test_the_server_is_ours(server: Server) -> None:
    assert isinstance(server.manager, FedfabServerManager)
    assert isinstance(server.aggregator, FedfabAggregator)
    assert {READY, START, SEND} <= set(server.manager.message_handler_dict)


def test_init_has_the_round_and_the_digest_and_no_model(server: Server, coordinated: Coordinated) -> None:
    server.begin()
    ((path, data),) = coordinated.globals
    assert path == "/r/global"
    assert torch.equal(decode_model(data, coordinated.media_type)["w"], weights(0)["w"])
    inits = server.sent.of(INIT)
    assert [init["receiver"] for init in inits] == [1, 2, 3]
    for init in inits:
        assert (init["round_idx"], init["fedfab_global_digest"]) == (0, digest_of(data))
        assert init["fedfab_global_url"] == f"{coordinated.url}/v1/runs/r/global"
        assert "model_params" not in init
    (defined,) = coordinated.defined
    assert defined["train_args"]["comm_round"] == 2
    assert defined["fedfab_args"] == {"mode": "admit"}
    assert "customized_training_mqtt_config" not in json.dumps(defined)


def test_a_round_is_aggregated_from_the_chain_and_handed_over_before_the_sync(
    server: Server, coordinated: Coordinated
) -> None:
    handed: list[int] = []
    server.sent.on_send = lambda fields: handed.append(len(coordinated.globals)) if fields["msg_type"] == SYNC else None
    coordinated.upload(_1=(1.0, 10), _2=(2.0, 20), _3=(4.0, 10))
    server.begin()
    server.work()
    path, data = coordinated.globals[1]
    assert path == "/r/rounds/70/global"
    after = decode_model(data, coordinated.media_type)
    assert after["w"].tolist() == [2.25, 2.25]
    assert handed[:3] == [2, 2, 2]
    syncs = server.sent.of(SYNC)
    assert [(sync["receiver"], sync["round_idx"]) for sync in syncs[:3]] == [(1, 1), (2, 1), (3, 1)]
    assert {sync["fedfab_global_digest"] for sync in syncs[:3]} == {digest_of(data)}
    # Nothing is kept here that the chain has.
    assert server.aggregator.model_dict == {}


def test_with_a_quorum_those_that_arrived_count_with_their_samples(server: Server, coordinated: Coordinated) -> None:
    coordinated.upload(_1=(1.0, 30), _3=(5.0, 10))
    coordinated.missing = [2]
    server.begin()
    server.work()
    assert decode_model(coordinated.globals[1][1], coordinated.media_type)["w"].tolist() == [2.0, 2.0]
    assert [sync["receiver"] for sync in server.sent.of(SYNC)[:3]] == [1, 2, 3]


def run_to_its_last_round(server: Server, coordinated: Coordinated) -> None:
    coordinated.upload(_1=(1.0, 1), _2=(1.0, 1), _3=(1.0, 1))
    server.begin()
    server.work()
    coordinated.round_idx = 1
    server.work()


def test_a_run_ends_by_itself(server: Server, coordinated: Coordinated) -> None:
    run_to_its_last_round(server, coordinated)
    assert [sync["round_idx"] for sync in server.sent.of(SYNC)] == [1, 1, 1, 2, 2, 2]
    assert server.sent.ended is False
    for client in (1, 2, 3):
        server.hears(STATUS, client, client_status="FINISHED")
    assert server.sent.ended is True


def test_a_client_that_comes_back_gets_the_round_that_the_run_is_in(server: Server, coordinated: Coordinated) -> None:
    coordinated.upload(_1=(1.0, 1), _2=(1.0, 1), _3=(1.0, 1))
    server.begin()
    server.work()
    server.sent.said.clear()
    server.hears(STATUS, 2, client_status="ONLINE")
    (init,) = server.sent.said
    assert (init["msg_type"], init["receiver"], init["round_idx"]) == (INIT, 2, 1)


def test_a_client_that_comes_back_after_the_last_round_gets_a_sync(server: Server, coordinated: Coordinated) -> None:
    """An INIT would begin the run anew at the coordinator."""
    run_to_its_last_round(server, coordinated)
    server.sent.said.clear()
    server.hears(STATUS, 2, client_status="ONLINE")
    (sync,) = server.sent.said
    assert (sync["msg_type"], sync["receiver"], sync["round_idx"]) == (SYNC, 2, 2)
    assert sync["fedfab_global_digest"] == digest_of(coordinated.globals[-1][1])


def test_what_the_server_measured_is_handed_over_with_the_model(coordinated: Coordinated) -> None:
    server = Server(coordinated, comm_round=3, frequency_of_the_test=2)
    coordinated.upload(_1=(1.0, 1), _2=(1.0, 1), _3=(1.0, 1))
    server.begin()
    for round_idx in range(3):
        coordinated.round_idx = round_idx
        server.work()
    # The initial model, and round 1 was not measured.
    assert coordinated.accuracies == ["", "accuracy=0.75", "", "accuracy=0.75"]
    server.manager.finish()


@pytest.mark.parametrize(
    ("metrics", "accuracy"),
    [
        ((0.5, 1.0, None, None), 0.5),
        ([np.float32(1)], 1.0),
        (0.25, 0.25),
        (None, None),
        ((), None),
        ((float("nan"), 1), None),
        ((57.3, 1), None),
        ((True,), None),
        ({"accuracy": 1}, None),
    ],
)
def test_metrics_of_all_kinds(metrics: Any, accuracy: Any) -> None:
    assert accuracy_in(metrics) == accuracy


def standing(round_idx: int, phase: str, **more: Any) -> dict[str, Any]:
    clients = [{"client": client, "phase": "sent"} for client in (1, 2, 3)]
    round_view = {"round_id": f"7{round_idx}", "round_idx": round_idx, "phase": phase, "clients": clients, **more}
    return {"phase": "running", "config": {}, "round": round_view}


def on_the_chain(coordinated: Coordinated, value: float) -> bytes:
    encoded = encode_model(weights(value), "safetensors")
    coordinated.globals.append(("before", encoded.data))
    coordinated.media_type = encoded.media_type
    return encoded.data


def test_a_server_that_comes_back_takes_the_round_up(coordinated: Coordinated) -> None:
    data = on_the_chain(coordinated, 3)
    coordinated.view, coordinated.round_idx = standing(1, "open"), 1
    coordinated.upload(_1=(1.0, 1), _2=(1.0, 1), _3=(1.0, 1))
    server = Server(coordinated)
    server.hears(0, 0)
    assert [(init["receiver"], init["round_idx"]) for init in server.sent.of(INIT)] == [(1, 1), (2, 1), (3, 1)]
    assert {init["fedfab_global_digest"] for init in server.sent.of(INIT)} == {digest_of(data)}
    assert server.aggregator.get_global_model_params()["w"].tolist() == [3, 3]
    server.work()
    assert [sync["round_idx"] for sync in server.sent.of(SYNC)] == [2, 2, 2]
    server.manager.finish()


def test_a_server_that_comes_back_to_a_round_that_is_over_aggregates_it(coordinated: Coordinated) -> None:
    on_the_chain(coordinated, 3)
    coordinated.view = standing(1, "complete")
    coordinated.upload(_1=(1.0, 1), _2=(2.0, 1), _3=(3.0, 1))
    server = Server(coordinated)
    server.hears(0, 0)
    assert server.sent.of(INIT) == []
    assert coordinated.globals[-1][0] == "/r/rounds/71/global"
    assert [sync["round_idx"] for sync in server.sent.of(SYNC)] == [2, 2, 2]
    server.manager.finish()


def test_a_server_that_comes_back_after_the_last_round_only_ends_it(coordinated: Coordinated) -> None:
    data = on_the_chain(coordinated, 3)
    coordinated.view = standing(1, "complete", **{"global": {"digest": digest_of(data)}})
    server = Server(coordinated)
    server.hears(0, 0)
    assert server.sent.of(INIT) == []
    assert [sync["round_idx"] for sync in server.sent.of(SYNC)] == [2, 2, 2]
    server.manager.finish()


def test_a_server_that_comes_back_to_the_first_round_takes_it_up_too(coordinated: Coordinated) -> None:
    """Said by INIT it would begin the run anew at the coordinator, whose clients may have trained already."""
    data = on_the_chain(coordinated, 3)
    coordinated.view = standing(0, "open")
    coordinated.upload(_1=(1.0, 1), _2=(1.0, 1), _3=(1.0, 1))
    server = Server(coordinated)
    server.hears(0, 0)
    assert server.sent.of(INIT) == []
    assert [(sync["receiver"], sync["round_idx"]) for sync in server.sent.of(SYNC)] == [(1, 0), (2, 0), (3, 0)]
    assert {sync["fedfab_global_digest"] for sync in server.sent.of(SYNC)} == {digest_of(data)}
    server.hears(STATUS, 2, client_status="ONLINE")
    assert server.sent.said[-1]["round_idx"] == 0
    server.work()
    assert coordinated.globals[-1][0] == "/r/rounds/70/global"
    server.sent.said.clear()
    server.hears(STATUS, 2, client_status="ONLINE")
    assert [(said["msg_type"], said["round_idx"]) for said in server.sent.said] == [(INIT, 1)]
    server.manager.finish()


def test_with_s3_a_first_round_begins_anew(coordinated: Coordinated, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its initial model is nowhere to be had."""
    monkeypatch.setattr(FedfabServerManager, "_storage", lambda *_: None)
    coordinated.view = standing(0, "open")
    server = Server(coordinated, settings={"global_model": "s3"})
    server.begin()
    assert [init["round_idx"] for init in server.sent.of(INIT)] == [0, 0, 0]
    server.manager.finish()


def test_a_run_that_is_over_is_not_trained_again(coordinated: Coordinated, caplog: pytest.LogCaptureFixture) -> None:
    on_the_chain(coordinated, 3)
    coordinated.view = {**standing(1, "complete"), "phase": "finished"}
    server = Server(coordinated)
    # FedML has put its own logger in the root's place, of which pytest knows nothing.
    log = logging.getLogger("fedml_fedfab")
    log.addHandler(caplog.handler)
    try:
        server.hears(0, 0)
    finally:
        log.removeHandler(caplog.handler)
    assert (server.sent.of(INIT), server.sent.ended, coordinated.defined) == ([], True, [])
    # Whoever has missed it hears the end.
    assert [finish["receiver"] for finish in server.sent.of(FINISH)] == [1, 2, 3]
    assert server.aggregator.get_global_model_params()["w"].tolist() == [3, 3]
    assert "run r is over, as the coordinator says: nothing to do. To train anew take another run_id" in caplog.text


def test_a_run_that_is_over_and_has_no_model_ends_as_well(coordinated: Coordinated) -> None:
    coordinated.view = {**standing(1, "complete"), "phase": "finished"}
    server = Server(coordinated)
    server.hears(0, 0)
    assert server.sent.ended is True


def test_a_new_connection_of_a_server_that_chose_some_of_its_clients(coordinated: Coordinated) -> None:
    server = Server(coordinated, client_num_per_round=2)
    server.hears(0, 0)
    server.sent.said.clear()
    server.hears(0, 0)
    assert [said["msg_type"] for said in server.sent.said] == [CHECK_STATUS] * 2
    server.manager.finish()


def test_ids_in_quotes_are_numbers(coordinated: Coordinated) -> None:
    server = Server(coordinated, client_id_list='["1", "2", "3"]')
    coordinated.upload(_1=(1.0, 1), _2=(2.0, 1), _3=(3.0, 1))
    server.begin()
    server.work()
    assert [sync["receiver"] for sync in server.sent.of(SYNC)] == [1, 2, 3]
    server.manager.finish()


def test_with_s3_the_model_of_the_chain_is_the_one_that_is_sent(
    coordinated: Coordinated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FedfabServerManager, "_storage", lambda *_: None)
    server = Server(coordinated, settings={"global_model": "s3"})
    coordinated.upload(_1=(1.0, 1), _2=(1.0, 1), _3=(1.0, 1))
    server.begin()
    on_the_chain(coordinated, 9)
    coordinated.conflict = True
    server.work()
    assert [sync["model_params"]["w"] for sync in server.sent.of(SYNC)] == [[9, 9]] * 3
    server.manager.finish()


def test_one_model_per_client_is_refused_before_anything_is_said(coordinated: Coordinated) -> None:
    server = Server(coordinated)
    server.aggregator.aggregator.params = {1: weights(1), 2: weights(2)}
    with pytest.raises(FedfabError, match="plain dict, which FedML takes for one model per client"):
        server.hears(0, 0)
    assert (server.sent.said, coordinated.defined) == ([], [])


def test_a_client_s_model_of_another_kind_does_not_end_the_run(server: Server, coordinated: Coordinated) -> None:
    coordinated.upload(_1=(1.0, 1), _2=(2.0, 1), _3=(4.0, 1))
    wrong = OrderedDict(w=torch.zeros(2, dtype=torch.complex64), n=torch.tensor(7))
    coordinated.models[3] = (encode_model(wrong, "safetensors"), 1)
    server.begin()
    server.work()
    assert decode_model(coordinated.globals[1][1], coordinated.media_type)["w"].tolist() == [1.5, 1.5]


def test_nobody_with_samples_does_not_end_the_run(server: Server, coordinated: Coordinated) -> None:
    coordinated.upload(_1=(1.0, 0), _2=(2.0, 0), _3=(3.0, 0))
    server.begin()
    server.work()
    assert decode_model(coordinated.globals[1][1], coordinated.media_type)["w"].tolist() == [2, 2]


def test_contributions_are_left_out_where_nothing_was_measured(coordinated: Coordinated) -> None:
    """A server that came back in a round that is not measured; FedML would take None apart."""
    metrics = (Context.KEY_METRICS_ON_LAST_ROUND, Context.KEY_METRICS_ON_AGGREGATED_MODEL)
    for key in metrics:
        Context().add(key, None)
    on_the_chain(coordinated, 3)
    coordinated.view, coordinated.round_idx = standing(1, "complete"), 1
    coordinated.upload(_1=(1.0, 1), _2=(2.0, 1), _3=(3.0, 1))
    server = Server(coordinated, comm_round=4, frequency_of_the_test=2, enable_contribution=True, contribution_alg="no")
    server.hears(0, 0)
    assert [sync["round_idx"] for sync in server.sent.of(SYNC)] == [2, 2, 2]
    server.manager.finish()


def test_the_clients_models_are_not_kept_in_fedml_s_context(server: Server, coordinated: Coordinated) -> None:
    coordinated.upload(_1=(1.0, 1), _2=(2.0, 1), _3=(4.0, 1))
    server.begin()
    server.work()
    assert Context().get(Context.KEY_CLIENT_MODEL_LIST) == []


@pytest.fixture
def _no_hooks() -> Iterator[None]:
    """FedML keeps its defences and noise in one object for all."""
    yield
    FedMLDefender._defender_instance = None
    FedMLDifferentialPrivacy._dp_instance = None


CLIPPING: dict[str, Any] = {"enable_defense": True, "defense_type": "norm_diff_clipping", "norm_bound": 1.0}
KRUM: dict[str, Any] = {"enable_defense": True, "defense_type": "krum", "byzantine_client_num": 0, "krum_param_m": 1}
NOISE: dict[str, Any] = {
    "enable_dp": True,
    "dp_solution_type": "cdp",
    "mechanism_type": "gaussian",
    "epsilon": 1.0,
    "delta": 1e-5,
    "sensitivity": 1e-4,
    "max_grad_norm": 1e9,
    "clipping_norm": 1e9,
}


@pytest.mark.usefixtures("_no_hooks")
@pytest.mark.parametrize("missing", [[], [2]], ids=["all", "quorum"])
def test_a_defence_before_the_aggregation(coordinated: Coordinated, missing: list[int]) -> None:
    """Clipped to a norm of 1 from the global model, which is 0."""
    server = Server(coordinated, **CLIPPING)
    given = {"_1": (30.0, 1), "_2": (30.0, 1), "_3": (30.0, 1)}
    coordinated.upload(**{name: model for name, model in given.items() if int(name[1:]) not in missing})
    coordinated.missing = missing
    server.begin()
    server.work()
    after = decode_model(coordinated.globals[1][1], coordinated.media_type)["w"]
    assert 0 < float(torch.linalg.vector_norm(after.double())) <= 1.0001
    server.manager.finish()


@pytest.mark.usefixtures("_no_hooks")
def test_a_defence_that_chooses_among_the_models(coordinated: Coordinated) -> None:
    server = Server(coordinated, **KRUM)
    coordinated.upload(_1=(1.0, 1), _2=(1.0, 1), _3=(90.0, 1))
    server.begin()
    server.work()
    assert decode_model(coordinated.globals[1][1], coordinated.media_type)["w"].tolist() == [1, 1]
    server.manager.finish()


@pytest.mark.usefixtures("_no_hooks")
def test_a_defence_that_needs_more_models_than_the_quorum_says_so(coordinated: Coordinated) -> None:
    """Krum's own bound: with two of three there are too few. Nothing is handed over."""
    server = Server(coordinated, **KRUM)
    coordinated.upload(_1=(1.0, 1), _3=(1.0, 1))
    coordinated.missing = [2]
    server.begin()
    with pytest.raises(ValueError, match="Krum"):
        server.work()
    assert len(coordinated.globals) == 1
    server.manager.finish()


@pytest.mark.usefixtures("_no_hooks")
@pytest.mark.parametrize("missing", [[], [2]], ids=["all", "quorum"])
def test_noise_after_the_aggregation(coordinated: Coordinated, missing: list[int]) -> None:
    """Without whole numbers in the model: FedML's clipping knows no norm of them."""
    server = Server(coordinated, **NOISE)
    server.aggregator.aggregator.params = OrderedDict(w=torch.zeros(2))
    ones = encode_model(OrderedDict(w=torch.ones(2)), "safetensors")
    coordinated.models = {client: (ones, 1) for client in (1, 2, 3) if client not in missing}
    coordinated.missing = missing
    server.begin()
    server.work()
    after = decode_model(coordinated.globals[1][1], coordinated.media_type)["w"].tolist()
    assert after == pytest.approx([1, 1], abs=0.01)
    assert after != [1, 1]
    server.manager.finish()


def test_clients_that_were_not_chosen_hear_the_end(coordinated: Coordinated) -> None:
    server = Server(coordinated, client_num_per_round=2, comm_round=1)
    server.hears(0, 0)
    chosen = [int(client) for client in server.manager.client_id_list_in_this_round]
    coordinated.upload(**{f"_{client}": (1.0, 1) for client in chosen})
    for client in chosen:
        server.hears(STATUS, client, client_status="ONLINE")
    server.work()
    (left,) = {1, 2, 3} - {int(client) for client in server.manager.client_id_list_in_this_round}
    assert [finish["receiver"] for finish in server.sent.of(FINISH)] == [left]
    server.manager.finish()


def test_a_model_sent_to_the_server_is_not_taken(server: Server) -> None:
    server.begin()
    server.hears(3, 1, num_samples=3)
    assert server.aggregator.model_dict == {}


class Adapter:
    """FedML's trainer, that adds 1."""

    def __init__(self) -> None:
        self.trainer = self
        self.params = weights(0)
        self.trained: list[int] = []

    def is_main_process(self) -> bool:
        return True

    def get_model_params(self) -> Any:
        return self.params

    def update_dataset(self, _index: int) -> None:
        pass

    def update_model(self, params: Any) -> None:
        self.params = params

    def train(self, round_idx: int) -> Any:
        self.trained.append(round_idx)
        return OrderedDict(w=self.params["w"] + 1, n=self.params["n"]), 5


class Client:
    """FedML's client manager under the plug-in, whose READY gets its START at once."""

    def __init__(self, stand_in: StandIn, **settings: Any) -> None:
        self.url = stand_in.url
        self.stand_in = stand_in
        self.latest = encode_model(weights(0), "safetensors")
        self.uploads: list[Seen] = []
        self.phase: str | None = "running"
        stand_in.answer = self._answer
        self.args = Args(
            rank=2,
            role="client",
            client_id_list="[2]",
            fedfab_args={"coordinator_url": stand_in.url, **settings},
        )
        self.adapter = Adapter()
        self.manager = client_initializer.ClientMasterManager(self.args, self.adapter, None, 2, 3, "MQTT_S3")
        self.sent = Sent()
        arrived, connected = self.manager.com_manager.on_arrival, self.manager.com_manager.on_connected
        self.arrived, self.connected = arrived, connected
        self.manager.com_manager = self.sent
        self.sent.on_send = self._on_send
        self.manager.register_message_receive_handlers()

    def _answer(self, seen: Seen) -> Any:
        if seen.method == "PUT":
            self.uploads.append(seen)
            return json_reply(201, {})
        if seen.path == "/v1/runs/r":
            return problem(404, "unknown_run") if self.phase is None else json_reply(200, {"phase": self.phase})
        return 200, {"content-type": self.latest.media_type}, self.latest.data

    def _on_send(self, fields: Any) -> None:
        if fields["msg_type"] == READY:
            start = {"round_id": "7", "round_idx": fields["round_idx"], "lease_s": 60}
            start.update(upload_url=f"{self.url}/up", upload_token="one-use")
            assert self.arrived({"msg_type": START, "sender": 0, "receiver": 2, **start}) is False

    def hears(self, kind: int, **fields: Any) -> None:
        fields = {"msg_type": kind, "sender": 0, "receiver": 2, "client_idx": "1", **fields}
        if not self.arrived(fields):
            return
        message = Message()
        message.init_from_json_object(fields)
        self.manager.receive_message(kind, message)

    def told(self, kind: int, round_idx: int, value: float, life: str = "a") -> None:
        self.latest = encode_model(weights(value), "safetensors")
        said = {"fedfab_global_digest": self.latest.digest, "fedfab_server_life": life}
        self.hears(kind, round_idx=round_idx, **said)


@pytest.fixture
def client(stand_in: StandIn) -> Client:
    return Client(stand_in)


def test_a_client_s_round(client: Client) -> None:
    assert isinstance(client.manager, FedfabClientMasterManager)
    client.told(INIT, 0, 3)
    assert [fields["msg_type"] for fields in client.sent.said] == [READY, SEND]
    (upload,) = client.uploads
    assert upload.path == "/up?num_samples=5"
    model = decode_model(upload.body, upload.headers["content-type"])
    assert model["w"].tolist() == [4, 4]
    assert client.sent.of(SEND)[0]["digest"] == digest_of(upload.body)
    # No message has a model in it.
    assert all("model_params" not in fields for fields in client.sent.said)


def test_rounds_are_those_that_the_server_says(client: Client) -> None:
    client.told(INIT, 0, 0)
    client.told(INIT, 0, 0)
    client.told(SYNC, 1, 1)
    client.told(INIT, 1, 1)
    assert client.adapter.trained == [0, 1]
    assert [fields["round_idx"] for fields in client.sent.of(READY)] == [0, 1]


def test_a_client_that_was_restarted_joins_the_round_of_the_run(client: Client) -> None:
    client.told(INIT, 1, 4)
    assert client.adapter.trained == [1]
    assert client.sent.of(READY)[0]["round_idx"] == 1


def test_the_last_sync_ends_it(client: Client) -> None:
    client.told(INIT, 0, 0)
    client.told(SYNC, 1, 1)
    client.told(SYNC, 2, 2)
    assert client.adapter.trained == [0, 1]
    assert client.adapter.params["w"].tolist() == [2, 2]
    assert client.sent.of(STATUS)[-1]["client_status"] == "FINISHED"
    assert client.sent.ended is True


def test_a_first_round_that_a_server_takes_up_is_trained_once(client: Client) -> None:
    client.told(SYNC, 0, 0, life="b")
    client.told(SYNC, 0, 0, life="c")
    client.told(SYNC, 1, 1, life="c")
    assert client.adapter.trained == [0, 1]
    assert [fields["round_idx"] for fields in client.sent.of(READY)] == [0, 1]


def quiet(client: Client) -> None:
    """A minute in which nothing has come."""
    for _ in range(2):
        client.manager._idle()


@pytest.mark.parametrize("begun", [False, True], ids=["never chosen", "in a round"])
def test_a_client_that_missed_the_end_asks_and_ends(client: Client, begun: bool) -> None:
    if begun:
        client.told(INIT, 0, 0)
    for phase in (None, "idle", "running"):
        client.phase = phase
        quiet(client)
        assert client.sent.ended is False
    client.phase = "finished"
    quiet(client)
    assert client.sent.of(STATUS)[-1]["client_status"] == "FINISHED"
    assert client.sent.ended is True


def test_a_coordinator_that_says_nothing_to_this_client_does_not_end_it(client: Client) -> None:
    client.stand_in.answer = lambda _seen: problem(403, "forbidden")
    quiet(client)
    assert client.sent.ended is False


def test_finish_ends_it(client: Client) -> None:
    client.hears(FINISH)
    assert client.sent.of(STATUS)[-1]["client_status"] == "FINISHED"
    assert client.sent.ended is True


def test_another_model_than_the_server_means_is_waited_out(client: Client, stand_in: StandIn) -> None:
    right, wrong = encode_model(weights(1), "safetensors"), encode_model(weights(2), "safetensors")
    answers = [wrong, wrong, right]
    bodies = []

    def answer(seen: Seen) -> Any:
        if seen.method == "PUT":
            return json_reply(201, {})
        model = answers.pop(0)
        etag = f'"{model.digest}"'
        if seen.headers.get("if-none-match") == etag:
            return 304, {"etag": etag}, b""
        bodies.append(model)
        return 200, {"content-type": model.media_type, "etag": etag}, model.data

    stand_in.answer = answer
    client.hears(INIT, round_idx=0, fedfab_global_digest=right.digest, fedfab_server_life="a")
    assert answers == []
    assert client.adapter.params["w"].tolist() == [1, 1]
    # The one that is not meant came once.
    assert bodies == [wrong, right]


def test_a_new_connection_is_told_to_the_server_at_once(client: Client) -> None:
    assert client.connected() is True
    client.hears(0)
    assert [fields["client_status"] for fields in client.sent.of(STATUS)] == ["ONLINE"]
    # From then on in the network's thread: the main one may be waiting for a START that was lost.
    assert client.connected() is False
    assert client.manager._mailbox._ready_due is True
    assert [fields["client_status"] for fields in client.sent.of(STATUS)] == ["ONLINE", "ONLINE"]


def test_the_json_encoding_goes_both_ways(stand_in: StandIn) -> None:
    client = Client(stand_in, encoding="json")
    client.latest = encode_model(weights(3), "json")
    client.hears(INIT, round_idx=0, fedfab_global_digest=client.latest.digest, fedfab_server_life="a")
    (upload,) = client.uploads
    assert upload.headers["content-type"] == "application/json"
    assert json.loads(upload.body) == {"w": [4.0, 4.0], "n": 7}
    assert client.adapter.params["n"].dtype == torch.int64


def test_a_server_without_the_plug_in_is_told_of(client: Client) -> None:
    with pytest.raises(FedfabError, match="it needs the plug-in too"):
        client.hears(INIT)
