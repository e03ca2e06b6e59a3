"""The section ``fedfab_args``: what is accepted, and the one clear error for what is not."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

from fedml_fedfab.errors import SettingsError
from fedml_fedfab.messages import MessageTypes
from fedml_fedfab.settings import PLUGIN_KEYS, RUN_KEYS, read_settings, settings_of

URL = "http://127.0.0.1:8080"


def read(**section: Any) -> Any:
    return read_settings({"coordinator_url": URL, **section}, "f.yaml", {})


def test_three_lines_are_enough() -> None:
    settings = read()
    assert (settings.coordinator_url, settings.encoding, settings.global_model) == (URL, "safetensors", "chain")
    assert (settings.token, settings.ready_every_s, settings.types) == ("", 10.0, MessageTypes())


def test_all_of_it() -> None:
    settings = read(
        coordinator_url="https://c.example/fab/",
        token="t0",
        encoding="json",
        global_model="s3",
        ready_every_s=2,
        finish_wait_s=0.5,
        messages={"ready": 20, "start": 21, "send": 22},
        quorum=2,
        deadline_s=30,
    )
    assert settings.coordinator_url == "https://c.example/fab"
    assert (settings.encoding, settings.global_model) == ("json", "s3")
    assert (settings.ready_every_s, settings.finish_wait_s, settings.types) == (2.0, 0.5, MessageTypes(20, 21, 22))
    assert settings.run_settings == {"quorum": 2, "deadline_s": 30}


def test_the_token_may_come_from_the_environment_and_the_file_wins() -> None:
    environment = {"FEDFAB_TOKEN": "outside"}
    assert read_settings({"coordinator_url": URL}, "f", environment).token == "outside"
    assert read_settings({"coordinator_url": URL, "token": "inside"}, "f", environment).token == "inside"
    # As docs/fedml.md writes it.
    assert read_settings({"coordinator_url": URL, "token": ""}, "f", environment).token == "outside"
    assert read_settings({"coordinator_url": URL, "token": ""}, "f", {}).token == ""


def test_a_bad_token_of_the_environment_is_told_of_and_not_shown() -> None:
    with pytest.raises(SettingsError, match="FEDFAB_TOKEN is no token") as caught:
        read_settings({"coordinator_url": URL}, "f", {"FEDFAB_TOKEN": "top secret"})
    assert "secret" not in str(caught.value)
    assert read_settings({"coordinator_url": URL, "token": "t"}, "f", {"FEDFAB_TOKEN": "top secret"}).token == "t"


def test_files_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ca.pem").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = read(coordinator_ca_file="~/ca.pem", mqtt_ca_file=str(tmp_path / "ca.pem"), mqtt_cert_file="")
    assert settings.coordinator_ca_file == settings.mqtt_ca_file == str(tmp_path / "ca.pem")
    assert settings.mqtt_cert_file == ""
    with pytest.raises(SettingsError, match="the path of a file that is there"):
        read(mqtt_ca_file=str(tmp_path / "none.pem"))
    with pytest.raises(SettingsError, match="write both, or neither"):
        read(mqtt_cert_file=str(tmp_path / "ca.pem"))


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"coordinator_url": None}, ["fedfab_args.coordinator_url", "missing", "http://127.0.0.1:8080"]),
        ({"coordinator_url": "localhost:8080"}, ["fedfab_args.coordinator_url", "'localhost:8080'", "http://"]),
        ({"coordinator_url": "http://user:secret@host"}, ["fedfab_args.coordinator_url"]),
        ({"encoding": "pickle"}, ["fedfab_args.encoding is 'pickle'", "safetensors or json"]),
        ({"global_model": "S3"}, ["fedfab_args.global_model is 'S3'", "chain or s3"]),
        ({"ready_every_s": 0}, ["fedfab_args.ready_every_s is 0", "seconds above 0"]),
        ({"ready_every_s": float("nan")}, ["fedfab_args.ready_every_s"]),
        ({"finish_wait_s": True}, ["fedfab_args.finish_wait_s is True"]),
        ({"local_models": "all"}, ["fedfab_args.local_models is 'all'", "like_global or any"]),
        ({"mqtt_tls": "yes"}, ["fedfab_args.mqtt_tls is 'yes'", "true or false"]),
        ({"messages": {"ready": 8}}, ["fedfab_args.messages", "above 8"]),
        ({"messages": {"ready": 10}}, ["fedfab_args.messages", "different"]),
        ({"messages": {"redy": 12}}, ["fedfab_args.messages"]),
        ({"encodng": "json"}, ["fedfab_args.encodng is no setting", "did you mean encoding?"]),
        ({"colour": 1}, ["fedfab_args.colour is no setting", "coordinator_url"]),
    ],
)
def test_a_bad_section_names_the_key_and_what_to_write(section: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        read(**section)
    assert str(caught.value).startswith("f.yaml: ")
    for words in said:
        assert words in str(caught.value)


def test_all_faults_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        read(encoding="x", global_model="y")
    assert len(str(caught.value).splitlines()) == 2


def test_a_bad_token_is_not_shown() -> None:
    with pytest.raises(SettingsError) as caught:
        read(token="top secret")
    assert "secret" not in str(caught.value)


def test_a_token_shows_nowhere() -> None:
    assert "hush" not in repr(read(token="hush"))


def test_a_section_that_is_none() -> None:
    with pytest.raises(SettingsError, match="coordinator_url"):
        read_settings(None, "f.yaml")


def args(path: Path, **rest: Any) -> Namespace:
    return Namespace(yaml_config_file=str(path), rank=0, backend="MQTT_S3", federated_optimizer="FedAvg", **rest)


def written(folder: Path, text: str, name: str = "c.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_no_section_no_plug_in(tmp_path: Path) -> None:
    assert settings_of(args(written(tmp_path, "train_args:\n  comm_round: 3\n"))) is None
    assert settings_of(Namespace()) is None
    assert settings_of(args(tmp_path / "none.yaml")) is None


def test_the_section_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, f"fedfab_args:\n  coordinator_url: {URL}\n  token: hush\n")
    given = args(path, token="hush", other="kept")
    settings = settings_of(given)
    assert settings is not None
    assert settings.token == "hush"
    # FedML logs all of its args.
    assert "hush" not in str(given.__dict__)
    assert given.other == "kept"
    assert settings_of(given) is settings


def test_the_section_as_an_attribute() -> None:
    given = Namespace(fedfab_args={"coordinator_url": URL, "token": "hush"})
    settings = settings_of(given)
    assert settings is not None
    assert settings.token == "hush"
    assert "hush" not in str(given.__dict__)


def test_a_silo_may_differ(tmp_path: Path) -> None:
    silo = written(tmp_path, "fedfab_args:\n  coordinator_url: http://silo:1\n", "silo.yaml")
    path = written(tmp_path, f"fedfab_args:\n  coordinator_url: {URL}\n  encoding: json\n")
    given = args(path, data_silo_config=[str(silo)])
    given.rank = 1
    settings = settings_of(given)
    assert settings is not None
    assert (settings.coordinator_url, settings.encoding) == ("http://silo:1", "json")


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ({"backend": "GRPC"}, "write backend: MQTT_S3"),
        ({"federated_optimizer": "LSA"}, "write FedAvg"),
        ({"enable_fhe": True}, "enable_fhe"),
    ],
)
def test_what_would_not_pass_through_is_refused(tmp_path: Path, rest: dict[str, Any], said: str) -> None:
    path = written(tmp_path, f"fedfab_args:\n  coordinator_url: {URL}\n")
    given = Namespace(**{**vars(args(path)), **rest})
    # Whoever asks again hears it again.
    for _ in range(2):
        with pytest.raises(SettingsError, match=said):
            settings_of(given)


def test_the_settings_of_a_run_are_those_of_the_coordinator() -> None:
    page = (REPOSITORY / "docs" / "configuration.md").read_text()
    table = page.split("<!-- run -->")[1].split("<!-- /run -->")[0]
    known = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]
    # FedML's own; and a run that is only observed is one without the plug-in.
    theirs = {"run_id", "server_id", "client_num_per_round", "comm_round", "mode", "storage_url"}
    assert set(RUN_KEYS) == set(known) - theirs


def test_the_coordinator_passes_over_the_plug_in_s_keys() -> None:
    source = (REPOSITORY / "coordinator" / "fedml-config.ts").read_text()
    missing = [key for key in PLUGIN_KEYS if f"'{key}'" not in source]
    assert missing == []


def rows(section: str) -> list[list[str]]:
    """The cells of a table of docs/fedml.md, by its marks."""
    page = (REPOSITORY / "docs" / "fedml.md").read_text()
    table = page.split(f"<!-- {section} -->")[1].split(f"<!-- /{section} -->")[0]
    lines = [line for line in table.splitlines() if line.startswith("| `")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_has_every_setting_with_its_default() -> None:
    documented = {name: default for name, default, *_ in rows("settings")}
    assert list(documented) == list(PLUGIN_KEYS)
    settings = read()
    for name in PLUGIN_KEYS:
        if name not in ("coordinator_url", "messages"):
            # As YAML writes it.
            assert documented[name] == json.dumps(getattr(settings, name)), name
    assert documented["messages"] == ", ".join(
        str(getattr(MessageTypes(), name)) for name in ("ready", "start", "send")
    )


def test_the_page_has_every_setting_of_the_run() -> None:
    assert [name for name, *_ in rows("run settings")] == list(RUN_KEYS)
