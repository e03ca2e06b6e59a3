"""The binary encoding: a safetensors file whose metadata keeps the order, the library and unusual types.

Written here (the library's door for writing changes from version to version, and sorts), read and checked by the
library. docs/model-format.md describes it for readers in other languages.
"""

from __future__ import annotations

import json
from typing import Any

from safetensors import SafetensorError, deserialize

from .errors import ModelFormatError
from .tensors import ITEM_SIZES, Model, Stored, items_of, library_of, ordered, restore, store, torch_is_here

MEDIA_TYPE = "application/vnd.fedfab.safetensors"
"""What the coordinator keeps beside the bytes."""

_KEY = "fedfab"
_VERSION = 1
_ALIGNMENT = 8  # of the first tensor, as the format asks for


def encode(model: Model) -> bytes:
    """The bytes of a model; the same model gives the same bytes. Raises ``ModelFormatError``."""
    stored = [(name, store(name, value)) for name, value in items_of(model)]
    about = {
        "version": _VERSION,
        "container": "dict" if type(model) is dict else "OrderedDict",
        "tensors": [_described(name, tensor) for name, tensor in stored],
    }
    header: dict[str, Any] = {"__metadata__": {_KEY: _compact(about)}}
    offset = 0
    for name, tensor in stored:
        end = offset + len(tensor.data)
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    head = _compact(header).encode("utf-8")
    head += b" " * (-len(head) % _ALIGNMENT)
    return b"".join([len(head).to_bytes(8, "little"), head, *(tensor.data for _, tensor in stored)])


def decode(data: bytes, like: Model | None = None) -> Model:
    """The model again. A safetensors file without our metadata is read too, in the order of its bytes.

    It does not say whose tensors it holds: they become those of ``like``'s library where that has the name.
    """
    try:
        found: dict[str, dict[str, Any]] = dict(deserialize(bytes(data)))  # type: ignore[no-untyped-call]
    except (SafetensorError, ValueError) as error:
        raise ModelFormatError(f"these bytes are no safetensors file: {error}") from error
    about = _about(data)
    if about is None:
        known = like if isinstance(like, dict) else {}
        library = "torch" if torch_is_here() else "numpy"
        rows: list[tuple[str, str, str | None]] = [
            (name, library_of(known[name]) if name in known else library, None) for name in found
        ]
        plain = False
    else:
        rows, plain = _rows(about), about.get("container") == "dict"
    if len(rows) != len(found) or {name for name, _, _ in rows} != set(found):
        raise ModelFormatError(f"the metadata {_KEY!r} does not list the tensors of the file")
    model = ordered(plain)
    for name, library, original in rows:
        model[name] = _restored(name, found[name], library, original)
    return model


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _described(name: str, tensor: Stored) -> list[str]:
    row = [name, tensor.library]
    return row if tensor.original is None else [*row, tensor.original]


def _about(data: bytes) -> dict[str, Any] | None:
    """Our metadata; None where there is none.

    The library has checked the header, but does not hand its metadata out.
    """
    length = int.from_bytes(data[:8], "little")
    try:
        text = json.loads(data[8 : 8 + length]).get("__metadata__", {}).get(_KEY)
        about = None if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"the metadata {_KEY!r} is not JSON") from error
    if about is None:
        return None
    if not isinstance(about, dict) or about.get("version") != _VERSION:
        raise ModelFormatError(f"the metadata {_KEY!r} is not of version {_VERSION}: use a newer fedml-fedfab")
    return about


def _rows(about: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    rows = about.get("tensors")
    if not isinstance(rows, list):
        raise ModelFormatError(f"the metadata {_KEY!r} lists no tensors")
    return [_row(row) for row in rows]


def _row(row: object) -> tuple[str, str, str | None]:
    if not isinstance(row, list) or len(row) not in (2, 3) or not all(isinstance(part, str) for part in row):
        raise ModelFormatError(f"the metadata {_KEY!r} describes a tensor wrongly")
    name, library = row[:2]
    if library not in ("torch", "numpy"):
        raise ModelFormatError(f"{name!r} is of library {library!r}: only torch and numpy are known")
    return name, library, row[2] if len(row) > 2 else None


def _restored(name: str, found: dict[str, Any], library: str, original: str | None) -> Any:
    dtype, shape = str(found["dtype"]), tuple(found["shape"])
    if dtype not in ITEM_SIZES:
        raise ModelFormatError(f"{name!r} has the type {dtype}, which is not known here")
    if original is not None and not shape:
        raise ModelFormatError(f"{name!r} is {original}, but lacks the axis of its parts")
    try:
        return restore(Stored(dtype, shape, found["data"], library, original))
    except ModelFormatError as error:
        raise ModelFormatError(f"{name!r}: {error}") from error
