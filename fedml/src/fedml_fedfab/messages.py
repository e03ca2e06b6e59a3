"""Names, numbers and shapes of the messages: FedML's, and the three that FedFab adds.

``messages.json`` is the copy of ``topics/messages.json`` that travels with this package; a test holds the two equal.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping

Fields = Dict[str, Any]
"""A message as FedML has it: the JSON object that travels."""

_FILE = Path(__file__).with_name("messages.json")
_TABLE: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
_TYPES: dict[str, dict[str, Any]] = _TABLE["types"]


def _number(name: str) -> int:
    return int(_TYPES[name]["number"])


CONNECTION_READY = _number("MSG_TYPE_CONNECTION_IS_READY")
INIT = _number("MSG_TYPE_S2C_INIT_CONFIG")
SYNC = _number("MSG_TYPE_S2C_SYNC_MODEL_TO_CLIENT")
SEND_MODEL = _number("MSG_TYPE_C2S_SEND_MODEL_TO_SERVER")
FINISH = _number("MSG_TYPE_S2C_FINISH")
HIGHEST_OF_FEDML = max(int(entry["number"]) for entry in _TYPES.values() if not entry.get("settable"))
"""FedML uses the numbers up to this one itself."""

ONLINE: str = _TABLE["statuses"]["online"]
FINISHED: str = _TABLE["statuses"]["finished"]
OFFLINE: str = _TABLE["statuses"]["offline"]

CLIENT_LAST_WILL: str = _TABLE["topics"]["client_last_will"]
SERVER_LAST_WILL: str = _TABLE["topics"]["server_last_will"]

ROUND_IDX = "round_idx"
"""The round, counted from 0; the plug-in adds it to FedML's INIT and SYNC."""
GLOBAL_DIGEST = "fedfab_global_digest"
"""SHA-256, hex, of the global model that an INIT or SYNC is about; with ``global_model: chain``."""
GLOBAL_URL = "fedfab_global_url"
"""Where the server's coordinator has that model; a client asks the coordinator of its own settings."""
SERVER_LIFE = "fedfab_server_life"
"""Random text, made anew at each start of a server: tells a client that the server began again."""


_LARGEST_EXACT = 2**53 - 1
_ID_DIGITS = 15


@dataclass(frozen=True)
class MessageTypes:
    """The numbers of the three messages that FedML does not have; the same at clients, server and coordinator."""

    ready: int = _number("MSG_TYPE_C2S_ADD_MODEL_READY")
    start: int = _number("MSG_TYPE_S2C_START_ADD_MODEL")
    send: int = _number("MSG_TYPE_C2S_ADD_MODEL_SEND")


def client_topic(run: str, client: int) -> str:
    """The topic on which a client speaks."""
    return str(_TABLE["topics"]["client"]).format(run=run, client=client)


def server_topic(run: str, server: int, client: int) -> str:
    """The topic on which the server, and the coordinator, speak to a client."""
    return str(_TABLE["topics"]["server"]).format(run=run, server=server, client=client)


def last_will(node: int, run: str) -> str:
    """What a node leaves with the broker, to be published when its connection breaks. FedML's own names no run."""
    return json.dumps({"ID": node, "status": OFFLINE, "run_id": run})


@dataclass(frozen=True)
class Start:
    """START: this client may upload now. The token is a secret: it is not in the ``repr``."""

    round_id: str
    round_idx: int
    lease_s: float
    upload_url: str
    upload_token: str

    def __repr__(self) -> str:
        return f"Start(round_id={self.round_id!r}, round_idx={self.round_idx}, lease_s={self.lease_s})"


def decode_start(fields: Mapping[str, Any]) -> Start | None:
    """Read START; None where a field is missing or is not what it should be."""
    round_idx, lease_s = fields.get("round_idx"), fields.get("lease_s")
    texts = [fields.get(name) for name in ("round_id", "upload_url", "upload_token")]
    if not _is_index(round_idx) or not _is_positive(lease_s):
        return None
    if not all(isinstance(text, str) and text for text in texts):
        return None
    round_id, upload_url, upload_token = (str(text) for text in texts)
    if not upload_url.startswith(("http://", "https://")):
        return None
    return Start(round_id, int(round_idx or 0), float(lease_s or 0), upload_url, upload_token)


def encode_ready(
    types: MessageTypes, *, client: int, server: int, round_idx: int | None, num_samples: int | None
) -> Fields:
    """READY: trained, wants to upload."""
    fields = {"msg_type": types.ready, "sender": client, "receiver": server}
    return {**fields, **_given(round_idx=round_idx, num_samples=num_samples)}


def encode_send(types: MessageTypes, *, client: int, server: int, round_idx: int | None, digest: str | None) -> Fields:
    """SEND: my model is on the chain."""
    fields = {"msg_type": types.send, "sender": client, "receiver": server}
    return {**fields, **_given(round_idx=round_idx, digest=digest)}


def round_of(fields: Mapping[str, Any]) -> int | None:
    """The round that a message names, or None."""
    value = fields.get(ROUND_IDX)
    return value if _is_index(value) else None


def decode_object(payload: bytes) -> Fields | None:
    """Read the JSON object of a message, its type and ids as numbers; None where it is no message.

    Ids may come as strings of digits, as some of FedML's nodes write them.
    """
    try:
        value = json.loads(payload.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    ids = {name: _id(value.get(name)) for name in ("msg_type", "sender", "receiver")}
    return None if None in ids.values() else {**value, **ids}


def comes_from_server(kind: int, types: MessageTypes) -> bool | None:
    """True for a type that the server (or the coordinator) sends, False for a client's, None for one nobody knows."""
    if kind in (types.ready, types.send):
        return False
    if kind == types.start:
        return True
    ways = {int(entry["number"]): entry["way"] for entry in _TYPES.values() if not entry.get("settable")}
    way = ways.get(kind)
    return None if way in (None, "local") else way == "server-to-client"


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _id(value: object) -> int | None:
    """An id: up to the integers that every JSON reader holds exactly. FedML also sends to a receiver -1."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _ID_DIGITS:
        return int(value)
    exact = isinstance(value, int) and not isinstance(value, bool) and -1 <= value <= _LARGEST_EXACT
    return int(value) if exact and isinstance(value, int) else None


def _given(**fields: Any) -> Fields:
    return {name: value for name, value in fields.items() if value is not None}


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
