"""Takes FedML's cross-silo runs onto the chain, by way of FedFab's coordinator.

``import fedml_fedfab`` is enough: where FedML's configuration has a section ``fedfab_args``, server and clients work
through the coordinator; where it has none, FedML behaves as before. Without FedML the model format can still be used.
"""

from __future__ import annotations

from .errors import CoordinatorError, FedfabError, ModelFormatError, SettingsError, UnsupportedFedMLError
from .install import fedml_is_here, install
from .model_format import EncodedModel, decode_model, encode_model
from .version import __version__

__all__ = [
    "CoordinatorError",
    "EncodedModel",
    "FedfabError",
    "ModelFormatError",
    "SettingsError",
    "UnsupportedFedMLError",
    "__version__",
    "decode_model",
    "encode_model",
    "install",
]

if fedml_is_here():
    install()
