"""Models as bytes with a media type and a digest, whatever the encoding.

Never pickle: what comes from others is only read.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from . import json_format, safetensors_format
from .errors import ModelFormatError
from .tensors import Model

__all__ = ["EncodedModel", "Model", "decode_model", "digest_of", "encode_model"]


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

    ``like``: one of the same kind, from which JSON takes types and shapes.
    """
    kind = media_type.split(";")[0].strip().lower()
    if kind == safetensors_format.MEDIA_TYPE:
        return safetensors_format.decode(data)
    if kind == json_format.MEDIA_TYPE:
        return json_format.decode(data, like)
    raise ModelFormatError(
        f"a model of media type {kind} cannot be read: {safetensors_format.MEDIA_TYPE} and {json_format.MEDIA_TYPE} can"
    )


def digest_of(data: bytes) -> str:
    """SHA-256, hex."""
    return hashlib.sha256(data).hexdigest()
