"""The section ``fedfab_args`` of FedML's YAML: read once, all faults told at once."""

from __future__ import annotations

import difflib
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Mapping

import yaml

from .errors import SettingsError
from .messages import HIGHEST_OF_FEDML, MessageTypes

SECTION = "fedfab_args"
TOKEN_VARIABLE = "FEDFAB_TOKEN"  # noqa: S105 (the name of a variable)

RUN_KEYS: tuple[str, ...] = (
    "lease_s",
    "window",
    "deadline_s",
    "quorum",
    "burst_quiet_ms",
    "client_ids",
    "client_organizations",
)
"""Settings of the run that may stand in the section too; the coordinator judges them (docs/configuration.md)."""

_ATTRIBUTE = "fedfab_settings"


@dataclass(frozen=True)
class Settings:
    """How this node works with the coordinator."""

    coordinator_url: str
    """Without a slash at the end."""
    token: str = field(default="", repr=False)
    """Bearer token for reading and for the server's calls; uploads have tokens of their own. "" for none."""
    coordinator_ca_file: str = ""
    """Certificates (PEM) of the authority that the coordinator's own is from; "" for those that everybody trusts."""
    encoding: str = "safetensors"
    """``safetensors`` or ``json``."""
    global_model: str = "chain"
    """``chain``: clients fetch global models from the coordinator; ``s3``: they travel as FedML does it."""
    local_models: str = "like_global"
    """Which models of clients are aggregated: those of the global model's names, shapes and types, or ``any``."""
    mqtt_tls: bool = False
    """Whether the broker is spoken to by TLS; a CA or a certificate of our own says so too."""
    mqtt_ca_file: str = ""
    """Certificates (PEM) of the authority that the broker's own is from; "" for those that the system trusts."""
    mqtt_cert_file: str = ""
    """Our own certificate (PEM), for a broker that asks for one."""
    mqtt_key_file: str = ""
    """Its key (PEM)."""
    ready_every_s: float = 10.0
    """READY is repeated after this many seconds without START."""
    finish_wait_s: float = 30.0
    """How long the server waits at the end for clients that have not said FINISHED."""
    types: MessageTypes = field(default_factory=MessageTypes)
    run_settings: Mapping[str, Any] = field(default_factory=dict)
    """What the section says of the run itself; handed to the coordinator as it is."""


def read_settings(section: object, source: str, environment: Mapping[str, str] | None = None) -> Settings:
    """Read a section. ``source`` names it in errors. Raises ``SettingsError`` with every fault of the section."""
    if not isinstance(section, dict):
        raise SettingsError(
            f"{source}: {SECTION} must be a section of settings; write at least\n"
            f"{SECTION}:\n  coordinator_url: http://127.0.0.1:8080"
        )
    faults: list[str] = []
    values: dict[str, Any] = {}
    for key, (read, wanted) in _READERS.items():
        given = section.get(key)
        # "" is how a YAML says that there is none: it must not hide what the environment has.
        if given is None or (given == "" and key in _MAY_BE_EMPTY):
            continue
        value = read(given)
        if value is None:
            # A secret is not to be shown, not even a wrong one.
            shown = "something else" if key == "token" else repr(given)
            faults.append(f"{SECTION}.{key} is {shown}: write {wanted}")
        else:
            values[key] = value
    if section.get("coordinator_url") is None:
        faults.append(
            f"{SECTION}.coordinator_url is missing: write the coordinator's address, such as http://127.0.0.1:8080"
        )
    if ("mqtt_cert_file" in values) is not ("mqtt_key_file" in values):
        faults.append(f"{SECTION} has one of mqtt_cert_file and mqtt_key_file: write both, or neither")
    faults += [_unknown(key) for key in section if key not in _READERS and key not in RUN_KEYS]
    if faults:
        raise SettingsError("\n".join(f"{source}: {fault}" for fault in faults))
    if "token" not in values:
        values["token"] = _token_of(os.environ if environment is None else environment)
    types = values.pop("messages", MessageTypes())
    run = {key: section[key] for key in RUN_KEYS if key in section}
    return Settings(types=types, run_settings=run, **values)


def settings_of(args: Any) -> Settings | None:
    """The settings of FedML's ``args``; None where the configuration has no ``fedfab_args``.

    FedML flattens its sections into attributes of ``args``, so the section is read from the files that FedML read, the
    silo's own file last; or it stands whole in ``args.fedfab_args``. Its token is taken out of ``args``, which FedML
    logs.
    """
    known = getattr(args, _ATTRIBUTE, None)
    if isinstance(known, Settings):
        return known
    found = _section_of(args)
    if found is None:
        return None
    section, source = found
    _hide_token(args, section)
    settings = read_settings(section, source)
    _check_rest(args, source)
    # Kept only now: whoever catches the error and asks again is to get it again.
    setattr(args, _ATTRIBUTE, settings)
    return settings


def has_section(args: Any) -> bool:
    """Whether the configuration asks for the plug-in at all."""
    return isinstance(getattr(args, _ATTRIBUTE, None), Settings) or _section_of(args) is not None


def _section_of(args: Any) -> tuple[object, str] | None:
    whole = getattr(args, SECTION, None)
    if whole is not None:
        return whole, "args"
    merged: dict[Any, Any] = {}
    source = ""
    for path in _files(args):
        section = _read_file(path)
        if section is _ABSENT:
            continue
        if not isinstance(section, dict):
            return section, path
        merged, source = {**merged, **section}, path
    return (merged, source) if source else None


_ABSENT = object()


def _files(args: Any) -> list[str]:
    """The YAML files that FedML read (``arguments.py``; ``__init__.py``, ``_update_client_specific_args``)."""
    files = [getattr(args, "yaml_config_file", "")]
    rank = int(getattr(args, "rank", 0))
    if getattr(args, "scenario", None) == "hierarchical":
        silos = getattr(args, "client_silo_config_paths", [])
        files.append(getattr(args, "server_config_path", "") if rank == 0 else _at(silos, rank - 1))
    if rank > 0:
        files.append(_at(getattr(args, "data_silo_config", []), rank - 1))
    return [str(file) for file in files if file]


def _at(paths: object, index: int) -> str:
    return str(paths[index]) if isinstance(paths, (list, tuple)) and 0 <= index < len(paths) else ""


def _read_file(path: str) -> object:
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        # FedML has read it before, or has said that it could not.
        return _ABSENT
    return content.get(SECTION, _ABSENT) if isinstance(content, dict) and SECTION in content else _ABSENT


def _token_of(environment: Mapping[str, str]) -> str:
    token = environment.get(TOKEN_VARIABLE, "").strip()
    if _token(token) is None:
        raise SettingsError(f"{TOKEN_VARIABLE} is no token: write the one that the operator gave you, without spaces")
    return token


def _hide_token(args: Any, section: object) -> None:
    token = section.get("token") if isinstance(section, dict) else None
    if token and getattr(args, "token", None) == token:
        delattr(args, "token")
    whole = getattr(args, SECTION, None)
    if isinstance(whole, dict) and "token" in whole:
        setattr(args, SECTION, {key: value for key, value in whole.items() if key != "token"})


def _check_rest(args: Any, source: str) -> None:
    """What the rest of FedML's configuration must say for the plug-in to work."""
    faults = []
    if getattr(args, "backend", "MQTT_S3") != "MQTT_S3":
        faults.append(f"comm_args.backend is {args.backend!r}: write backend: MQTT_S3, {SECTION} works with no other")
    optimizer = getattr(args, "federated_optimizer", "FedAvg")
    if optimizer != "FedAvg":
        faults.append(
            f"train_args.federated_optimizer is {optimizer!r}: write FedAvg, the others do not pass through {SECTION}; "
            "a server aggregator of your own may still do what it likes"
        )
    if getattr(args, "enable_fhe", False):
        faults.append(f"enable_fhe is set: take it away, {SECTION} cannot keep encrypted models")
    if faults:
        raise SettingsError("\n".join(f"{source}: {fault}" for fault in faults))


def _unknown(key: object) -> str:
    near = difflib.get_close_matches(str(key), [*_READERS, *RUN_KEYS], n=1)
    advice = f"did you mean {near[0]}?" if near else f"known are {', '.join([*_READERS, *RUN_KEYS])}"
    return f"{SECTION}.{key} is no setting: {advice}"


def _url(value: object) -> str | None:
    text = value.strip() if isinstance(value, str) else ""
    return text.rstrip("/") if re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", text) else None


def _token(value: object) -> str | None:
    return value if isinstance(value, str) and re.fullmatch(r"[\x21-\x7e]*", value) else None


def _file(value: object) -> str | None:
    """A file that is there; ``~`` is the home folder."""
    path = Path(value).expanduser() if isinstance(value, str) and value else None
    return str(path) if path is not None and path.is_file() else None


def _truth(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _one_of(*words: str) -> Callable[[object], str | None]:
    return lambda value: value if isinstance(value, str) and value in words else None


def _seconds(value: object) -> float | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if number and isinstance(value, (int, float)) and math.isfinite(value) and value > 0 else None


def _types(value: object) -> MessageTypes | None:
    defaults = MessageTypes()
    if not isinstance(value, dict) or not set(value) <= {"ready", "start", "send"}:
        return None
    numbers = [value.get(name, getattr(defaults, name)) for name in ("ready", "start", "send")]
    whole = all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
    if not whole or len(set(numbers)) < len(numbers) or min(numbers) <= HIGHEST_OF_FEDML:
        return None
    return MessageTypes(*numbers)


_READERS: dict[str, tuple[Callable[[object], Any], str]] = {
    "coordinator_url": (_url, "the coordinator's address, such as http://127.0.0.1:8080"),
    "token": (_token, f"the token that the operator gave you, as text without spaces; or set {TOKEN_VARIABLE}"),
    "coordinator_ca_file": (_file, "the path of a file that is there, with certificates (PEM)"),
    "encoding": (_one_of("safetensors", "json"), "safetensors or json"),
    "global_model": (_one_of("chain", "s3"), "chain or s3"),
    "local_models": (_one_of("like_global", "any"), "like_global or any"),
    "mqtt_tls": (_truth, "true or false"),
    "mqtt_ca_file": (_file, "the path of a file that is there, with certificates (PEM)"),
    "mqtt_cert_file": (_file, "the path of a file that is there, with this node's certificate (PEM)"),
    "mqtt_key_file": (_file, "the path of a file that is there, with that certificate's key (PEM)"),
    "ready_every_s": (_seconds, "a number of seconds above 0"),
    "finish_wait_s": (_seconds, "a number of seconds above 0"),
    "messages": (
        _types,
        f"three different whole numbers above {HIGHEST_OF_FEDML} under ready, start and send, as at the coordinator",
    ),
}

_MAY_BE_EMPTY = frozenset({"token", "coordinator_ca_file", "mqtt_ca_file", "mqtt_cert_file", "mqtt_key_file"})

PLUGIN_KEYS: tuple[str, ...] = tuple(_READERS)
"""The section's keys that are the plug-in's own; the coordinator passes over them."""
