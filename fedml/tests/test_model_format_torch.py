"""Torch's tensors, bit for bit, in both encodings. A type that the torch at hand does not have is left out."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from conftest import ENCODINGS, SHAPES, round_trip, same

from fedml_fedfab.errors import ModelFormatError
from fedml_fedfab.model_format import decode_model, encode_model
from fedml_fedfab.safetensors_format import MEDIA_TYPE as SAFETENSORS

torch = pytest.importorskip("torch", reason="torch is not installed in this environment")

KNOWN = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64",
         "complex128", "uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz",
         "complex32"]  # fmt: skip
TORCH = [name for name in KNOWN if hasattr(torch, name)]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("dtype", TORCH)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_torch_bit_for_bit(encoding: str, dtype: str, shape: tuple[int, ...]) -> None:
    kind = getattr(torch, dtype)
    size = torch.empty(0, dtype=kind).element_size()
    raw = torch.tensor(np.random.default_rng(5).integers(0, 256, math.prod(shape) * size, dtype=np.uint8))
    if dtype == "bool":
        raw = raw % 2
    value = raw.view(kind).reshape(shape) if raw.numel() else torch.empty(shape, dtype=kind)
    if encoding == "json" and dtype.startswith("float8"):
        with pytest.raises(ModelFormatError, match="encoding: safetensors"):
            encode_model(OrderedDict(x=value), encoding)
        return
    after = round_trip(OrderedDict(x=value), encoding)["x"]
    assert after.dtype == kind
    assert same(value, after)


def every_type() -> dict[str, Any]:
    """All that this torch has, each once: ``float`` is ``float32``."""
    found = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
    return {str(value).split(".")[-1]: value for value in found}


def made(kind: Any) -> Any:
    """Six elements of random bits; None where torch makes no dense tensor of this type."""
    try:
        size = torch.empty(0, dtype=kind).element_size()
        raw = torch.tensor(np.random.default_rng(3).integers(0, 2, 6 * size, dtype=np.uint8))
        return raw.view(kind).reshape(2, 3)
    except RuntimeError:
        return None


@pytest.mark.parametrize("name", sorted(every_type()))
def test_every_type_of_torch_comes_back_or_is_refused(name: str) -> None:
    value = made(every_type()[name])
    if value is None or value.is_quantized:
        # Only with a scale beside it, which is no part of a tensor's bytes.
        assert name.startswith(("q", "bits")), f"torch makes no tensor of {name}"
        return
    after = round_trip(OrderedDict(x=value), "safetensors")["x"]
    assert after.dtype == value.dtype
    assert same(value, after)
    if name not in KNOWN or name.startswith("float8"):
        with pytest.raises(ModelFormatError, match="encoding: safetensors"):
            encode_model(OrderedDict(x=value), "json")
    else:
        assert same(value, round_trip(OrderedDict(x=value), "json")["x"])


def test_a_file_of_other_writers_is_of_the_reader_s_library() -> None:
    from safetensors.numpy import save

    data = save({"w": np.array([1.5, 2], np.float32), "v": np.array([1], np.float32)})
    after = decode_model(data, SAFETENSORS, OrderedDict(w=np.zeros(2, np.float32)))
    assert isinstance(after["w"], np.ndarray)
    assert isinstance(after["v"], torch.Tensor)


def test_quantized_tensors_are_refused() -> None:
    with pytest.raises(ModelFormatError, match="'w' is sparse, quantized"):
        encode_model({"w": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}, "safetensors")


def test_tensors_that_are_views_or_learn() -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    model = OrderedDict(
        turned=whole.t(),
        every_second=whole[:, ::2],
        learns=torch.nn.Parameter(whole),
        conj=torch.tensor([1 + 2j]).conj(),
    )
    after = round_trip(model, "safetensors")
    for name, value in model.items():
        assert torch.equal(after[name], value.detach()), name


def test_a_state_dict_goes_back_into_its_module() -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Linear(4, 2))
    for encoding in ENCODINGS:
        after = round_trip(module.state_dict(), encoding)
        assert list(after) == list(module.state_dict())
        twin = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Linear(4, 2))
        twin.load_state_dict(after)


def test_sparse_tensors_are_refused() -> None:
    with pytest.raises(ModelFormatError, match="'w' is sparse"):
        encode_model({"w": torch.eye(2).to_sparse()}, "safetensors")
