"""Tensors as plain bytes and back, for torch and numpy alike: what both encodings share.

What a format has no type for is kept in one that it has, with the original's name beside it: complex numbers as pairs
of real ones, any other dense torch type as its raw bytes.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import ModelFormatError

Model = Any
"""A mapping from names to tensors; after decoding always an ``OrderedDict`` or, where it was one, a ``dict``."""

ITEM_SIZES: dict[str, int] = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
"""The stored types, in safetensors' words, with the bytes of one element."""

_NAMES: dict[str, str] = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "uint16": "U16", "int16": "I16", "float16": "F16", "bfloat16": "BF16", "uint32": "U32", "int32": "I32",
    "float32": "F32", "uint64": "U64", "int64": "I64", "float64": "F64",
}  # fmt: skip
_LIBRARY_NAMES = {stored: name for name, stored in _NAMES.items()}
_PAIRS: dict[str, str] = {"complex32": "F16", "complex64": "F32", "complex128": "F64"}
_NUMPY_KINDS = frozenset("biufc")


@dataclass(frozen=True)
class Stored:
    """One tensor as bytes, little-endian, in C order."""

    dtype: str
    """A key of ``ITEM_SIZES``."""
    shape: tuple[int, ...]
    data: bytes | bytearray
    library: str
    """``torch`` or ``numpy``: whose tensor it was."""
    original: str | None = None
    """The library's name of the type where ``dtype`` is only what it is kept in; the shape then has one axis more."""


def store(name: str, value: Any) -> Stored:
    """The bytes of one tensor. Raises ``ModelFormatError`` for what is no dense tensor."""
    if is_torch(value):
        return _store_torch(name, value)
    if isinstance(value, (np.ndarray, np.generic)):
        return _store_numpy(name, np.asarray(value))
    raise _no_tensor(name, value)


def _no_tensor(name: str, value: Any) -> ModelFormatError:
    return ModelFormatError(
        f"{name!r} is of type {type(value).__name__}: a model is a mapping of names to torch tensors or numpy arrays"
    )


def restore(stored: Stored) -> Any:
    """The tensor again, with memory of its own."""
    if stored.dtype == "BOOL" and any(stored.data.translate(None, b"\x00\x01")):
        raise ModelFormatError("a truth value is neither 0 nor 1")
    return _restore_torch(stored) if stored.library == "torch" else _restore_numpy(stored)


def is_torch(value: Any) -> bool:
    """True for a torch tensor, without importing torch for it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def library_of(value: Any) -> str:
    """``torch`` or ``numpy``."""
    return "torch" if is_torch(value) else "numpy"


_REAL = frozenset(
    {"bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"}
)  # fmt: skip


def kind_of(name: str, value: Any) -> str:
    """A tensor's library, shape and, in words, what it can be computed with. Raises ``ModelFormatError`` for no tensor.

    Real numbers are one kind: FedML's mean makes floating-point numbers of whole ones, which the next model may have
    again. Others do not mix.
    """
    if is_torch(value):
        library, dtype = "torch", str(value.dtype).split(".")[-1]
    elif isinstance(value, (np.ndarray, np.generic)):
        library, dtype = "numpy", value.dtype.name
    else:
        raise _no_tensor(name, value)
    return f"{library}'s {'real numbers' if dtype in _REAL else dtype} of shape {list(value.shape)}"


def items_of(model: Model) -> list[tuple[str, Any]]:
    """Names and tensors in their order. Raises ``ModelFormatError`` for what is no model."""
    if not isinstance(model, dict):
        raise ModelFormatError(
            f"a model of type {type(model).__name__} cannot be sent: get_model_params must return an OrderedDict of "
            "tensors, as torch's state_dict does"
        )
    for name in model:
        if not isinstance(name, str) or name == "__metadata__":
            raise ModelFormatError(f"{name!r} cannot be the name of a tensor: names are text")
        try:
            name.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ModelFormatError(f"{name!r} cannot be the name of a tensor: it is no Unicode text") from error
    return list(model.items())


def ordered(plain: bool) -> OrderedDict[str, Any] | dict[str, Any]:
    """An empty model. FedML treats a plain ``dict`` as one model per client, so the kind is kept."""
    return {} if plain else OrderedDict()


def torch_is_here() -> bool:
    """True where torch can be imported."""
    try:
        import torch  # noqa: F401 (asked for, not used)
    except ImportError:
        return False
    return True


def _store_torch(name: str, value: Any) -> Stored:
    import torch

    if value.layout != torch.strided or value.is_quantized or value.device.type == "meta":
        raise ModelFormatError(f"{name!r} is sparse, quantized or without data: only dense tensors can be sent")
    shape = tuple(value.shape)
    plain = value.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    original = str(value.dtype).split(".")[-1]
    data = _raw_bytes(torch, plain)
    kept = _NAMES.get(original)
    if kept is not None:
        return Stored(kept, shape, data, "torch")
    if original in _PAIRS:
        return Stored(_PAIRS[original], (*shape, 2), data, "torch", original)
    return Stored("U8", (*shape, value.element_size()), data, "torch", original)


def _raw_bytes(torch: Any, plain: Any) -> bytes:
    if plain.numel() == 0:
        return b""
    if plain.is_complex():
        plain = torch.view_as_real(plain).reshape(-1)
    return bytes(plain.view(torch.uint8).numpy().tobytes())


def _store_numpy(name: str, value: np.ndarray[Any, Any]) -> Stored:
    original = value.dtype.name
    if value.dtype.kind not in _NUMPY_KINDS or original not in {**_NAMES, **_PAIRS}:
        raise ModelFormatError(f"{name!r} has numpy's type {value.dtype}: only numbers and truth values can be sent")
    # `ascontiguousarray` would make a scalar an array of one.
    data = value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes(order="C")
    if original in _PAIRS:
        return Stored(_PAIRS[original], (*value.shape, 2), data, "numpy", original)
    return Stored(_NAMES[original], tuple(value.shape), data, "numpy")


def _restore_torch(stored: Stored) -> Any:
    try:
        import torch
    except ImportError as error:
        raise ModelFormatError("this model holds torch tensors: install torch to read it") from error
    name = stored.original or _LIBRARY_NAMES[stored.dtype]
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ModelFormatError(f"this torch ({torch.__version__}) has no type {name}")
    shape = stored.shape if stored.original is None else stored.shape[:-1]
    _check_size(stored, torch.empty(0, dtype=dtype).element_size(), shape)
    if len(stored.data) == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(stored.data), dtype=torch.uint8).view(dtype).reshape(shape)


def _restore_numpy(stored: Stored) -> np.ndarray[Any, Any]:
    name = stored.original or _LIBRARY_NAMES[stored.dtype]
    try:
        dtype = np.dtype(name).newbyteorder("<")
    except TypeError as error:
        raise ModelFormatError(f"numpy has no type {name}") from error
    if dtype.kind not in _NUMPY_KINDS:
        raise ModelFormatError(f"numpy's type {name} is none of numbers")
    shape = stored.shape if stored.original is None else stored.shape[:-1]
    _check_size(stored, dtype.itemsize, shape)
    return np.frombuffer(bytearray(stored.data), dtype=dtype).reshape(shape)


def _check_size(stored: Stored, item_size: int, shape: tuple[int, ...]) -> None:
    count = 1
    for length in shape:
        count *= length
    if count * item_size != len(stored.data):
        raise ModelFormatError(f"{len(stored.data)} bytes are no tensor of shape {list(shape)} with {item_size} each")
