"""The one logger of this package, which goes where FedML's lines go."""

from __future__ import annotations

import logging

LOG = logging.getLogger("fedml_fedfab")
"""Never told a model or a token."""


def follow_fedml() -> None:
    """Send our lines where FedML sends its own.

    FedML puts a logger of its own in the place of ``logging.root`` (core/mlops/mlops_runtime_log.py), of which loggers
    with a name know nothing: they would go on to the old root, which says nothing below a warning.
    """
    LOG.parent = logging.root
    # Loggers remember which levels are on; setting a level makes them ask again.
    LOG.setLevel(logging.NOTSET)
