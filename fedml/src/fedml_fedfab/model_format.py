"""Models as bytes with a media type and a digest, whatever the encoding.

Never pickle: what comes from others is only read.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from . import json_format, safetensors_format
from .errors import ModelFormatError
from .tensors import Model, kind_of

__all__ = ["EncodedModel", "Model", "check_kind", "decode_model", "digest_of", "encode_model"]


@dataclass(frozen=True)
class EncodedModel:
    """A model as it travels."""

    data: bytes = field(repr=False)
    media_type: str
    digest: str
    """SHA-256 of ``data``, hex."""


def encode_model(model: Model, encoding: str) -> EncodedModel:
    """Write a model. ``encoding`` is ``safetensors`` or ``json``. Raises ``ModelFormatError``."""
    form = safetensors_format if encoding == "safetensors" else json_format
    data = form.encode(model)
    return EncodedModel(data, form.MEDIA_TYPE, digest_of(data))


def decode_model(data: bytes, media_type: str, like: Model | None = None) -> Model:
    """Read a model. Raises ``ModelFormatError``.

    ``like``: one of the same kind, from which JSON takes types and shapes, and both what is not said of the library.
    """
    kind = media_type.split(";")[0].strip().lower()
    if kind == safetensors_format.MEDIA_TYPE:
        return safetensors_format.decode(data, like)
    if kind == json_format.MEDIA_TYPE:
        return json_format.decode(data, like)
    raise ModelFormatError(
        f"a model of media type {kind} cannot be read: {safetensors_format.MEDIA_TYPE} and {json_format.MEDIA_TYPE} can"
    )


def check_kind(model: Model, like: Model) -> None:
    """Raise ``ModelFormatError`` for a model whose names, shapes, types or library are not those of ``like``."""
    missing, more = [name for name in like if name not in model], [name for name in model if name not in like]
    if missing:
        raise ModelFormatError(f"it lacks {_some(missing)}")
    if more:
        raise ModelFormatError(f"it has {_some(more)}, which the global model has not")
    for name, tensor in model.items():
        found, wanted = kind_of(name, tensor), kind_of(name, like[name])
        if found != wanted:
            raise ModelFormatError(f"{name!r} is {found}, in the global model {wanted}")


def _some(names: list[str]) -> str:
    """A model may have thousands of them."""
    shown = ", ".join(repr(name) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def digest_of(data: bytes) -> str:
    """SHA-256, hex."""
    return hashlib.sha256(data).hexdigest()
