"""The diary's encoding: an object of nested lists, ``{"linear.weight": [[0.5, …], …], …}``, in strict JSON.

JSON holds neither types nor empty shapes: the reader takes them from a model of its own (``like``). What JSON has no
number for is text: ``"Infinity"``, ``"-Infinity"``, ``"NaN"``, and a NaN of other bits as ``"NaN:7fc00001"``.
"""

from __future__ import annotations

import json
import re
from typing import Any, Iterator

import numpy as np

from .errors import ModelFormatError
from .tensors import ITEM_SIZES, Model, Stored, items_of, ordered, restore, store, torch_is_here

MEDIA_TYPE = "application/json"
"""What the coordinator keeps beside the bytes."""

_FLOATS = {"F16": "float16", "F32": "float32", "F64": "float64"}
_INTEGERS = {
    name: f"{'u' if name[0] == 'U' else ''}int{8 * size}" for name, size in ITEM_SIZES.items() if name[0] in "UI"
}
_QUIET_NAN = {"F16": 0x7E00, "BF16": 0x7FC0, "F32": 0x7FC00000, "F64": 0x7FF8000000000000}
_NAN = re.compile(r"NaN:([0-9a-f]{4,16})")


def encode(model: Model) -> bytes:
    """The JSON text of a model, UTF-8. Raises ``ModelFormatError``, also for types that JSON cannot hold."""
    lists = {name: _nested(name, store(name, value)) for name, value in items_of(model)}
    return json.dumps(lists, allow_nan=False, separators=(",", ":")).encode("ascii")


def decode(data: bytes, like: Model | None = None) -> Model:
    """The model again, with types, shapes and library of ``like`` where it has the name.

    Elsewhere a list of truth values becomes bool, of whole numbers int64, any other float32.
    """
    try:
        lists = json.loads(data.decode("utf-8"), object_pairs_hook=_pairs, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"these bytes are no JSON model: {type(error).__name__}") from error
    if not isinstance(lists, dict):
        raise ModelFormatError("a JSON model is an object of lists")
    known = like if isinstance(like, dict) else {}
    model = ordered(plain=type(like) is dict)
    library = "torch" if torch_is_here() else "numpy"
    for name, value in lists.items():
        template = store(name, known[name]) if name in known else None
        model[name] = restore(_stored(name, value, template, library))
    return model


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ModelFormatError("a JSON model has one name twice")
    return result


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _nested(name: str, tensor: Stored) -> Any:
    flat = _values(name, tensor)
    if not tensor.shape:
        return flat[0]
    return np.array(flat, dtype=object).reshape(tensor.shape).tolist()


def _values(name: str, tensor: Stored) -> list[Any]:
    if tensor.dtype == "BOOL":
        return [byte != 0 for byte in tensor.data]
    if tensor.dtype in _INTEGERS and tensor.original is None:
        return list(np.frombuffer(tensor.data, dtype=f"<{_code(tensor)}").tolist())
    if tensor.dtype not in _QUIET_NAN:
        kind = tensor.original or tensor.dtype
        raise ModelFormatError(f"{name!r} is {kind}, for which JSON has no number: write encoding: safetensors")
    bits = np.frombuffer(tensor.data, dtype=f"<u{ITEM_SIZES[tensor.dtype]}")
    numbers = _as_floats(tensor.dtype, bits)
    values: list[Any] = numbers.tolist()
    for index in np.flatnonzero(~np.isfinite(numbers)).tolist():
        values[index] = _special(tensor.dtype, values[index], int(bits[index]))
    return values


def _as_floats(dtype: str, bits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if dtype == "BF16":
        return (bits.astype("<u4") << 16).view("<f4")
    return bits.view(np.dtype(_FLOATS[dtype]).newbyteorder("<"))


def _special(dtype: str, value: float, bits: int) -> str:
    if value in (float("inf"), float("-inf")):
        return "Infinity" if value > 0 else "-Infinity"
    return "NaN" if bits == _QUIET_NAN[dtype] else f"NaN:{bits:0{2 * ITEM_SIZES[dtype]}x}"


def _stored(name: str, value: Any, template: Stored | None, library: str) -> Stored:
    shape, flat = _flattened(name, value, template)
    if template is None:
        return Stored(*_guessed(name, shape, flat), library)
    if shape != template.shape:
        raise ModelFormatError(f"{name!r} has the shape {list(shape)} instead of {list(template.shape)}")
    return Stored(template.dtype, shape, _packed(name, template, flat), template.library, template.original)


def _flattened(name: str, value: Any, template: Stored | None) -> tuple[tuple[int, ...], list[Any]]:
    shape = _shape(value)
    flat = list(_leaves(value, shape))
    if any(leaf is _RAGGED for leaf in flat):
        raise ModelFormatError(f"{name!r} is a ragged list")
    # Lists end where an axis is empty: [] may be of shape (0,) or (0, 3).
    if template is not None and not flat and template.shape[: len(shape)] == shape:
        return template.shape, flat
    return shape, flat


_RAGGED = object()


def _shape(value: Any) -> tuple[int, ...]:
    shape: list[int] = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return tuple(shape)


def _leaves(value: Any, shape: tuple[int, ...]) -> Iterator[Any]:
    if not shape:
        yield _RAGGED if isinstance(value, (list, dict)) or value is None else value
    elif not isinstance(value, list) or len(value) != shape[0]:
        yield _RAGGED
    else:
        for inner in value:
            yield from _leaves(inner, shape[1:])


def _guessed(name: str, shape: tuple[int, ...], flat: list[Any]) -> tuple[str, tuple[int, ...], bytes]:
    kinds = {type(leaf) for leaf in flat}
    dtype = "BOOL" if kinds == {bool} else "I64" if kinds == {int} else "F32"
    tensor = Stored(dtype, shape, b"", "numpy")
    return dtype, shape, _packed(name, tensor, flat)


def _packed(name: str, tensor: Stored, flat: list[Any]) -> bytes:
    try:
        if tensor.dtype == "BOOL":
            return bytes(_truth(leaf) for leaf in flat)
        if tensor.dtype in _INTEGERS and tensor.original is None:
            return b"".join(_whole(leaf, tensor) for leaf in flat)
        return _packed_floats(tensor, flat)
    except (TypeError, ValueError, OverflowError, KeyError) as error:
        kind = tensor.original or tensor.dtype
        raise ModelFormatError(f"{name!r} has a value that is no {kind}") from error


def _truth(leaf: Any) -> int:
    if not isinstance(leaf, bool):
        raise TypeError
    return int(leaf)


def _whole(leaf: Any, tensor: Stored) -> bytes:
    if not isinstance(leaf, int) or isinstance(leaf, bool):
        raise TypeError
    return leaf.to_bytes(ITEM_SIZES[tensor.dtype], "little", signed=tensor.dtype[0] == "I")


def _packed_floats(tensor: Stored, flat: list[Any]) -> bytes:
    special = [index for index, leaf in enumerate(flat) if isinstance(leaf, str)]
    plain = [0.0 if isinstance(leaf, str) else _finite(leaf) for leaf in flat]
    wide = np.array(plain, dtype="<f8")
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.dtype(_FLOATS["F32" if tensor.dtype == "BF16" else tensor.dtype]).newbyteorder("<"))
    if not np.isfinite(narrow).all():
        raise OverflowError
    if tensor.dtype == "BF16":
        # Every bfloat16 is a float32 whose lower half is 0; what is not comes from elsewhere and is cut.
        bits = (narrow.view("<u4") >> 16).astype("<u2")
    else:
        bits = narrow.view(f"<u{ITEM_SIZES[tensor.dtype]}")
    bits = bits.copy()
    for index in special:
        bits[index] = _bits_of(tensor.dtype, flat[index])
    return bytes(bits.tobytes())


def _finite(leaf: Any) -> float:
    if not isinstance(leaf, (int, float)) or isinstance(leaf, bool) or leaf != leaf or leaf in _INFINITE:
        raise TypeError
    return float(leaf)


_INFINITE = (float("inf"), float("-inf"))
_INFINITY = {"F16": 0x7C00, "BF16": 0x7F80, "F32": 0x7F800000, "F64": 0x7FF0000000000000}


def _bits_of(dtype: str, text: str) -> int:
    infinity = _INFINITY[dtype]
    if text == "Infinity":
        return infinity
    if text == "-Infinity":
        return int(infinity | 1 << (8 * ITEM_SIZES[dtype] - 1))
    if text == "NaN":
        return _QUIET_NAN[dtype]
    match = _NAN.fullmatch(text)
    bits = int(match.group(1), 16) if match else 0
    if bits & infinity != infinity or bits >> (8 * ITEM_SIZES[dtype]):
        raise ValueError
    return bits


def _code(tensor: Stored) -> str:
    return f"{'u' if tensor.dtype[0] == 'U' else 'i'}{ITEM_SIZES[tensor.dtype]}"
