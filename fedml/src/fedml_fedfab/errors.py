"""What can go wrong and be told in one sentence. Every message says what was wrong and what to do."""

from __future__ import annotations


class FedfabError(Exception):
    """Anything that this package refuses or fails at; its text is safe to show: no token, no model."""


class SettingsError(FedfabError):
    """The section ``fedfab_args`` is not right, or does not fit the rest of FedML's configuration."""


class UnsupportedFedMLError(FedfabError):
    """This FedML is none of those that the plug-in was written and tested against."""


class ModelFormatError(FedfabError):
    """A model cannot be written in the encoding, or bytes are not a model in it."""


class CoordinatorError(FedfabError):
    """The coordinator refused, in a way that repeating does not mend.

    ``code`` is the stable code of the coordinator's problem document (docs/operations.md), "" where it gave none.
    """

    def __init__(self, message: str, *, status: int = 0, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
