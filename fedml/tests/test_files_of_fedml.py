"""Nothing of FedML's was changed: its files are what the list says that pip wrote when it installed them.

Run after the other tests, which have used it.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import metadata
from pathlib import Path

import pytest

from fedml_fedfab.install import fedml_is_here

if not fedml_is_here():
    pytest.skip("FedML is not installed in this environment", allow_module_level=True)


def test_fedml_s_files_are_as_pip_installed_them() -> None:
    import fedml_fedfab  # noqa: F401 (what is under test)

    files = metadata.files("fedml") or []
    listed = [file for file in files if file.hash is not None]
    assert len([file for file in listed if file.suffix == ".py"]) > 100
    changed = [str(file) for file in listed if digest_of(file) != (file.hash and file.hash.value)]
    assert changed == []


def digest_of(file: metadata.PackagePath) -> str:
    digest = hashlib.sha256(Path(str(file.locate())).read_bytes()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
