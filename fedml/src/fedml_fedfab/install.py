"""Puts the plug-in's classes where FedML looks for its own: names in modules in memory, no file."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import sys
from types import SimpleNamespace
from typing import Any, Callable, Sequence

from .errors import UnsupportedFedMLError
from .log import LOG, follow_fedml
from .settings import Settings, has_section, settings_of

SUPPORTED = ("0.8.50", "0.9.6")
"""Versions of FedML that the plug-in was tested with. Others have other insides."""

PYTHONS = ((3, 8), (3, 12))
"""The first and the last Python on which these can be installed."""

_MARK = "_fedfab"


def fedml_is_here() -> bool:
    """True where FedML is installed. (A folder named ``fedml`` in the current one is not FedML.)."""
    found = importlib.util.find_spec("fedml")
    return found is not None and found.origin is not None


def check_version(version: str, python: tuple[int, ...] = sys.version_info[:2]) -> None:
    """Raise ``UnsupportedFedMLError`` for a FedML or a Python that the plug-in does not know."""
    if version not in SUPPORTED:
        raise UnsupportedFedMLError(
            f"this is FedML {version}; fedml-fedfab works with {' and '.join(SUPPORTED)}: "
            f"pip install fedml=={SUPPORTED[-1]}"
        )
    check_python(python)


def check_python(python: tuple[int, ...] = sys.version_info[:2]) -> None:
    """Raise ``UnsupportedFedMLError`` for a Python that FedML cannot be installed on."""
    if not PYTHONS[0] <= python[:2] <= PYTHONS[1]:
        raise UnsupportedFedMLError(
            f"this is Python {python[0]}.{python[1]}; FedML and fedml-fedfab work on "
            f"{' to '.join('.'.join(map(str, one)) for one in PYTHONS)}: make an environment of one of them"
        )


def install() -> None:
    """Make FedML use the plug-in wherever its configuration has the section ``fedfab_args``. May be called twice.

    A FedML that the plug-in does not know is left as it is, for those who do without the section; with it,
    ``UnsupportedFedMLError`` is raised when the configuration is read.
    """
    try:
        import fedml
    except Exception:
        # What FedML says there is of no help.
        check_python()
        raise
    try:
        check_version(str(getattr(fedml, "__version__", "of no version")))
    except UnsupportedFedMLError as error:
        _stay_out(fedml, error)
        return
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


def _stay_out(fedml: Any, error: UnsupportedFedMLError) -> None:
    """Say why where somebody asks for the plug-in; whoever does not is not to notice it.

    What a FedML of any version has is looked at: the file on the command line, what ``fedml.init`` makes of it, and
    what its runner is given.
    """
    if _asked_for_by(sys.argv):
        raise error
    LOG.warning("the plug-in stays out: %s", error)

    def guarded(original: Callable[..., Any], *, looks_at_result: bool) -> Callable[..., Any]:
        @functools.wraps(original)
        def guard(*arguments: Any, **named: Any) -> Any:
            seen = [*arguments, *named.values()]
            result = None if any(map(_asks, seen)) else original(*arguments, **named)
            if any(map(_asks, [*seen, result] if looks_at_result else seen)):
                raise error
            return result

        setattr(guard, _MARK, original)
        return guard

    init, runner = getattr(fedml, "init", None), getattr(fedml, "FedMLRunner", None)
    if callable(init) and not hasattr(init, _MARK):
        fedml.init = guarded(init, looks_at_result=True)
    begin = vars(runner).get("__init__") if isinstance(runner, type) else None
    if callable(begin) and not hasattr(begin, _MARK):
        setattr(runner, "__init__", guarded(begin, looks_at_result=False))  # noqa: B010 (mypy's own rule)


def _asks(value: object) -> bool:
    """Whether this is FedML's ``args`` of a configuration with the section."""
    return hasattr(value, "yaml_config_file") and has_section(value)


def _asked_for_by(argv: Sequence[str]) -> bool:
    """Whether the file that FedML is told of on the command line has the section."""
    files = [after for flag, after in zip(argv, argv[1:]) if flag in ("--cf", "--yaml_config_file")]
    files += [word.split("=", 1)[1] for word in argv if word.startswith(("--cf=", "--yaml_config_file="))]
    return any(has_section(SimpleNamespace(yaml_config_file=file)) for file in files)


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
