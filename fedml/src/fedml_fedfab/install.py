"""Puts the plug-in's classes where FedML looks for its own: names in modules in memory, no file."""

from __future__ import annotations

import functools
import importlib.util
import inspect
from typing import Any, Callable

from .errors import UnsupportedFedMLError
from .log import LOG, follow_fedml
from .settings import Settings, settings_of

SUPPORTED = ("0.8.50", "0.9.6")
"""Versions of FedML that the plug-in was tested with. Others have other insides."""

_MARK = "_fedfab"


def fedml_is_here() -> bool:
    """True where FedML is installed. (A folder named ``fedml`` in the current one is not FedML.)."""
    found = importlib.util.find_spec("fedml")
    return found is not None and found.origin is not None


def check_version(version: str) -> None:
    """Raise ``UnsupportedFedMLError`` for a FedML that the plug-in does not know."""
    if version not in SUPPORTED:
        raise UnsupportedFedMLError(
            f"this is FedML {version}; fedml-fedfab works with {' and '.join(SUPPORTED)}: "
            f"pip install fedml=={SUPPORTED[-1]}"
        )


def install() -> None:
    """Make FedML use the plug-in wherever its configuration has the section ``fedfab_args``. May be called twice."""
    import fedml

    check_version(fedml.__version__)
    from fedml import cross_silo
    from fedml.cross_silo.client import client_initializer
    from fedml.cross_silo.server import server_initializer

    from .aggregator import FedfabAggregator
    from .client_manager import FedfabClientMasterManager
    from .server_manager import FedfabServerManager

    _replace(server_initializer, "FedMLServerManager", FedfabServerManager)
    _replace(server_initializer, "FedMLAggregator", FedfabAggregator)
    _replace(client_initializer, "ClientMasterManager", FedfabClientMasterManager)
    # Whoever makes these has the settings read first, and hears of what would not pass through the classes above.
    _read_first(cross_silo.Client)
    _read_first(cross_silo.Server)


def _replace(module: Any, name: str, ours: type[Any]) -> None:
    original = getattr(module, name)
    if hasattr(original, _MARK):
        return
    setattr(module, name, _chooser(original, ours))


def _read_first(original: type[Any]) -> None:
    """Have a class of FedML's read the settings before it begins. It stays a class, for those who derive from it."""
    begin = original.__init__
    if hasattr(begin, _MARK):
        return
    signature = inspect.signature(begin)

    @functools.wraps(begin)
    def read_and_begin(self: Any, *arguments: Any, **named: Any) -> None:
        settings_of(signature.bind(self, *arguments, **named).arguments["args"])
        begin(self, *arguments, **named)

    setattr(read_and_begin, _MARK, begin)
    original.__init__ = read_and_begin


def _chooser(original: type[Any], ours: type[Any]) -> Callable[..., Any]:
    """A stand-in for a class of FedML's: makes one of ours where the configuration asks for it."""
    signature = inspect.signature(original.__init__)

    def make(*arguments: Any, **named: Any) -> Any:
        args = signature.bind(None, *arguments, **named).arguments["args"]
        settings = settings_of(args)
        if settings is None:
            return original(*arguments, **named)
        _tell(settings, ours)
        return ours(*arguments, **named)

    make.__name__ = original.__name__
    make.__doc__ = original.__doc__
    setattr(make, _MARK, original)
    return make


def _tell(settings: Settings, ours: type[Any]) -> None:
    follow_fedml()
    LOG.info(
        "%s: coordinator %s, encoding %s, global models by %s",
        ours.__name__,
        settings.coordinator_url,
        settings.encoding,
        settings.global_model,
    )
