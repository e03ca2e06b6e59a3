"""Both encodings: every value comes back bit for bit, and nothing that is not a model gets in."""

from __future__ import annotations

import json
import math
import struct
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from conftest import ENCODINGS, SHAPES, round_trip, same

from fedml_fedfab.errors import ModelFormatError
from fedml_fedfab.json_format import MEDIA_TYPE as JSON
from fedml_fedfab.model_format import decode_model, encode_model
from fedml_fedfab.safetensors_format import MEDIA_TYPE as SAFETENSORS

NUMPY = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32",
         "float64", "complex64", "complex128"]  # fmt: skip
ALL_OF_NUMPY = sorted({np.dtype(kind).str for kind in np.sctypeDict.values()})
"""By their letters, such as ``<f4``: on this machine ``long`` and ``longlong`` are the same."""


def numpy_array(dtype: str, shape: tuple[int, ...]) -> Any:
    """Random bits of the type, so also NaNs with payloads and subnormal numbers."""
    kind = np.dtype(dtype)
    count = math.prod(shape)
    if dtype == "bool":
        return (np.arange(count) % 2 == 0).reshape(shape)
    bits = np.random.default_rng(7).integers(0, 256, count * kind.itemsize, dtype=np.uint8)
    return np.frombuffer(bits.tobytes(), dtype=kind).reshape(shape)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_numpy_bit_for_bit(encoding: str, dtype: str, shape: tuple[int, ...]) -> None:
    value = np.asarray(numpy_array(dtype, shape))
    after = round_trip(OrderedDict(x=value), encoding)["x"]
    assert same(value, after)
    assert after.flags.writeable


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_order_and_the_kind_of_mapping_are_kept(encoding: str) -> None:
    names = ["z", "a", "m", "Z", "aa", "0", 'name with \N{GREEK SMALL LETTER ALPHA} and "quotes"']
    model = OrderedDict((name, np.zeros(index % 3, np.float32)) for index, name in enumerate(names))
    assert list(round_trip(model, encoding)) == names
    assert type(round_trip(model, encoding)) is OrderedDict
    # To FedML a plain dict is something else.
    assert type(round_trip(dict(model), encoding)) is dict


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_same_model_gives_the_same_bytes(encoding: str) -> None:
    model = OrderedDict((str(index), np.full(3, index, np.float32)) for index in range(50))
    assert len({encode_model(model, encoding).digest for _ in range(5)}) == 1


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", ALL_OF_NUMPY)
def test_every_type_of_numpy_comes_back_or_is_refused(encoding: str, kind: str) -> None:
    dtype = np.dtype(kind)
    model = OrderedDict(x=np.zeros(2, dtype))
    if dtype.name in NUMPY:
        assert same(model["x"], round_trip(model, encoding)["x"])
        return
    # Text, times, objects; and long doubles, which each machine has others of.
    assert dtype.kind in "SUVOMm" or dtype in (np.dtype(np.longdouble), np.dtype(np.clongdouble))
    with pytest.raises(ModelFormatError, match="'x' has numpy's type"):
        encode_model(model, encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("dtype", [name for name in NUMPY if np.dtype(name).itemsize > 1])
def test_big_endian_values_are_kept_and_come_back_little_endian(encoding: str, dtype: str) -> None:
    value = np.asarray(numpy_array(dtype, (8,)))
    swapped = value.astype(value.dtype.newbyteorder(">"))
    after = round_trip(OrderedDict(x=swapped), encoding)["x"]
    assert after.dtype == np.dtype(dtype).newbyteorder("<")
    assert after.tobytes() == value.tobytes()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("dtype", "bits"), [("float16", "uint16"), ("float32", "uint32"), ("float64", "uint64")])
def test_every_sort_of_nan_keeps_its_bits(encoding: str, dtype: str, bits: str) -> None:
    """Quiet and signalling, of both signs, with the smallest and largest payloads."""
    info = np.finfo(dtype)
    infinity, sign = (2**info.nexp - 1) << info.nmant, 1 << (info.bits - 1)
    patterns = [infinity | payload for payload in (1, 1 << (info.nmant - 1), (1 << info.nmant) - 1, 5)]
    value = np.array([*patterns, *(sign | one for one in patterns)], dtype=bits).view(dtype)
    assert np.isnan(value).all()
    assert same(value, round_trip(OrderedDict(x=value), encoding)["x"])


def test_an_empty_model() -> None:
    for encoding in ENCODINGS:
        assert round_trip(OrderedDict(), encoding) == OrderedDict()


def test_at_most_4_1_bytes_for_a_float32() -> None:
    layers = 40
    count = 100_000 // layers
    model = OrderedDict(
        (f"encoder.layers.{index}.attention.weight", np.ones(count, np.float32)) for index in range(layers)
    )
    assert len(encode_model(model, "safetensors").data) <= 4.1 * layers * count


def test_other_readers_of_safetensors_can_read_it() -> None:
    from safetensors.numpy import load

    data = encode_model(OrderedDict(b=np.array([1, 2], np.int16), a=np.float32(3)), "safetensors").data
    found = load(data)
    assert found["b"].tolist() == [1, 2]
    assert found["a"].shape == ()


def test_a_file_of_other_writers_can_be_read() -> None:
    from safetensors.numpy import save

    data = save({"w": np.array([1.5, 2], np.float32)})
    # It does not say whose its tensors are.
    assert isinstance(decode_model(data, SAFETENSORS, OrderedDict(w=np.zeros(2, np.float32)))["w"], np.ndarray)
    assert [float(value) for value in decode_model(data, SAFETENSORS)["w"]] == [1.5, 2]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ([np.zeros(1)], "OrderedDict"),
        ({"w": 1.0}, "'w' is of type float"),
        ({"w": [1.0]}, "'w' is of type list"),
        ({1: np.zeros(1)}, "names are text"),
        ({"__metadata__": np.zeros(1)}, "cannot be the name"),
        ({"\ud800": np.zeros(1)}, "no Unicode"),
        ({"w": np.array(["a"])}, "'w' has numpy's type"),
        ({"w": np.array([None])}, "'w' has numpy's type object"),
        ({"w": np.zeros(1, "datetime64[s]")}, "'w' has numpy's type"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_is_no_model_is_refused(model: Any, said: str, encoding: str) -> None:
    with pytest.raises(ModelFormatError, match=said):
        encode_model(model, encoding)


def header_file(header: object, data: bytes = b"") -> bytes:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + data


def described(tensors: object, **more: Any) -> dict[str, Any]:
    return {"__metadata__": {"fedfab": json.dumps({"version": 1, "tensors": tensors, **more})}}


W = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04\x95pickle",
        header_file(W, b"123"),
        header_file(W, b"12345"),
        struct.pack("<Q", 2**62) + b"{}",
        header_file(b"{"),
        header_file(b"[" * 100_000),
        header_file({"w": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}, b"1234"),
        header_file({"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, b"1234"),
        header_file({"w": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
        header_file({**W, **described([["v", "numpy"]])}, b"1234"),
        header_file({**W, **described([["w", "numpy"], ["w", "numpy"]])}, b"1234"),
        header_file({**W, **described([["w", "os"]])}, b"1234"),
        header_file({**W, **described([["w", "numpy", "object"]])}, b"1234"),
        header_file({**W, **described([["w", "numpy", "float64"]])}, b"1234"),
        header_file({**W, **described([["w", "numpy", "nonsense"]])}, b"1234"),
        header_file({**W, **described("w")}, b"1234"),
        header_file({**W, **described([["w", "numpy"]], version=2)}, b"1234"),
        header_file({**W, "__metadata__": {"fedfab": "{"}}, b"1234"),
        header_file({"w": {**W["w"], "dtype": "BOOL", "data_offsets": [0, 1]}, **described([["w", "numpy"]])}, b"\2"),
    ],
    ids=range(20),
)
def test_broken_or_wicked_safetensors_are_refused(data: bytes) -> None:
    with pytest.raises(ModelFormatError):
        decode_model(data, SAFETENSORS)


def test_every_truncation_is_refused() -> None:
    whole = encode_model(OrderedDict(w=np.arange(3, dtype=np.float32), v=np.float64(1)), "safetensors").data
    for length in range(len(whole)):
        with pytest.raises(ModelFormatError):
            decode_model(whole[:length], SAFETENSORS)


LIKE = OrderedDict(
    h=np.float16(0), f=np.zeros(2, np.float32), i=np.zeros(2, np.int8), b=np.zeros(2, bool), u=np.zeros((), np.uint64)
)


@pytest.mark.parametrize(
    "text",
    [
        b"\xff",
        b"{",
        b"[]",
        b'{"f": [NaN, 1]}',
        b'{"f": [1e999, 1]}',
        b'{"f": [1e39, 1]}',
        b'{"h": 70000}',
        b'{"new": [1e39, 0.5]}',
        b'{"f": ["nan", 1]}',
        b'{"f": ["NaN:3f800000", 1]}',
        b'{"f": ["NaN:7fc000001", 1]}',
        b'{"f": [true, 1]}',
        b'{"f": [1]}',
        b'{"f": [[1], [2, 3]]}',
        b'{"f": [1, [2]]}',
        b'{"f": null}',
        b'{"f": {"a": 1}}',
        b'{"i": [1.5, 1]}',
        b'{"i": [128, 1]}',
        b'{"b": [0, 1]}',
        b'{"u": -1}',
        b'{"u": 1, "u": 2}',
        b'{"f": ' + b"[" * 100_000,
    ],
    ids=range(23),
)
def test_broken_or_wicked_json_is_refused(text: bytes) -> None:
    with pytest.raises(ModelFormatError):
        decode_model(text, JSON, LIKE)


def test_json_is_what_the_diary_wrote() -> None:
    model = OrderedDict([("linear.weight", np.array([[0.5, -1], [2, 0.25]], np.float32)), ("n", np.int64(7))])
    assert json.loads(encode_model(model, "json").data) == {"linear.weight": [[0.5, -1.0], [2.0, 0.25]], "n": 7}


def test_json_keeps_what_json_has_no_number_for() -> None:
    special = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0x7F800000, 0xFF800000], np.uint32).view(np.float32)
    data = encode_model(OrderedDict(f=special), "json").data
    assert json.loads(data)["f"] == ["NaN", "NaN:ffc00000", "NaN:7f800001", "Infinity", "-Infinity"]
    assert same(special, decode_model(data, JSON, OrderedDict(f=special))["f"])


def test_json_without_a_model_to_go_by() -> None:
    after = decode_model(b'{"f": [1, 2.5], "i": [1, 2], "b": [true]}', JSON)
    assert [str(value.dtype).split(".")[-1] for value in after.values()] == ["float32", "int64", "bool"]


def test_an_unknown_media_type_names_those_that_are_known() -> None:
    with pytest.raises(ModelFormatError, match=r"application/octet-stream.*application/vnd\.fedfab\.safetensors"):
        decode_model(b"", "application/octet-stream")
    assert decode_model(b"{}", "Application/JSON; charset=utf-8") == {}


def test_nothing_pickled_is_ever_read() -> None:
    import pickle

    wicked = pickle.dumps({"w": np.zeros(1)})
    for media_type in (SAFETENSORS, JSON):
        with pytest.raises(ModelFormatError):
            decode_model(wicked, media_type)
