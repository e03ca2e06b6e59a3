"""How the plug-in gets in, where it stays out, and what it says to a FedML that it does not know."""

from __future__ import annotations

import importlib
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import REPOSITORY

from fedml_fedfab.errors import SettingsError, UnsupportedFedMLError
from fedml_fedfab.install import PYTHONS, SUPPORTED, _read_first, _replace, check_version
from fedml_fedfab.node import client_ids

SOURCE = REPOSITORY / "fedml" / "src"


@pytest.mark.parametrize("version", SUPPORTED)
def test_versions_that_are_known(version: str) -> None:
    check_version(version)


@pytest.mark.parametrize("version", ["0.7.1", "0.8.51", "0.9.60", "1.0.0", ""])
def test_other_versions_are_refused_with_what_to_do(version: str) -> None:
    with pytest.raises(UnsupportedFedMLError, match=rf"this is FedML {version}; .*0\.8\.50 and 0\.9\.6: pip install"):
        check_version(version)


def test_the_two_versions_are_those_of_the_demo() -> None:
    source = (REPOSITORY / "coordinator" / "demo" / "fedml-environment.ts").read_text()
    assert all(f"'{version}'" in source for version in SUPPORTED)


class Theirs:
    def __init__(self, args: Any, other: int = 0) -> None:
        self.args, self.other = args, other


class Ours(Theirs):
    pass


def replaced() -> Any:
    module = SimpleNamespace(Manager=Theirs)
    _replace(module, "Manager", Ours)
    first = module.Manager
    _replace(module, "Manager", Ours)
    assert module.Manager is first
    return module


def test_without_the_section_fedml_s_own_class_is_made() -> None:
    made = replaced().Manager(Namespace(), other=3)
    assert type(made) is Theirs
    assert made.other == 3


def test_with_the_section_ours_is_made_however_args_are_given() -> None:
    module = replaced()
    section = {"coordinator_url": "http://127.0.0.1:1"}
    for made in (
        module.Manager(Namespace(fedfab_args=section), 3),
        module.Manager(args=Namespace(fedfab_args=section)),
    ):
        assert type(made) is Ours


def test_a_wrong_section_stops_it() -> None:
    with pytest.raises(SettingsError, match="coordinator_url"):
        replaced().Manager(Namespace(fedfab_args={}))


def test_a_class_that_reads_the_settings_first_stays_a_class() -> None:
    class Base:
        def __init__(self, args: Any, other: int) -> None:
            self.args, self.other = args, other

    class Derived(Base):
        pass

    _read_first(Base)
    _read_first(Base)
    assert Derived(Namespace(), other=3).other == 3
    section = {"coordinator_url": "http://127.0.0.1:1"}
    with pytest.raises(SettingsError, match="write FedAvg"):
        Derived(Namespace(fedfab_args=section, federated_optimizer="LSA"), 3)


@pytest.mark.parametrize(
    ("args", "ids"),
    [
        (Namespace(rank=0, client_id_list="[1, 2, 3]"), [1, 2, 3]),
        (Namespace(rank=0, client_id_list='["4", "7"]'), [4, 7]),
        (Namespace(rank=2, client_id_list="[2]"), [2]),
    ],
)
def test_client_ids(args: Namespace, ids: list[int]) -> None:
    assert client_ids(args) == ids


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (Namespace(rank=1, client_id_list="[1, 2]"), "leave it out"),
        (Namespace(rank=0, client_id_list="one"), "whole numbers"),
        (Namespace(rank=0, client_id_list=None), "once"),
        (Namespace(rank=0, client_id_list="[1, 1]"), "once"),
        (Namespace(rank=0, client_id_list="[0]"), "from 1 on"),
    ],
)
def test_client_ids_that_would_not_work(args: Namespace, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        client_ids(args)


def run(folder: Path, *arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", "-m", "fedml_fedfab", *arguments],
        cwd=folder,
        env={"PYTHONPATH": f"{path}:{SOURCE}:{':'.join(sys.path)}", "HOME": str(folder), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


FAKE = """
__version__ = "0.1.0"

class Args:
    def __init__(self, file):
        self.yaml_config_file = file

def init(args=None, file=""):
    return args or Args(file)

class FedMLRunner:
    def __init__(self, args, device=None):
        print("made a runner for", args.yaml_config_file)
"""


@pytest.fixture
def fake_fedml(tmp_path: Path) -> str:
    """A package of FedML's name and of a version that nobody knows."""
    package = tmp_path / "site" / "fedml"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(FAKE)
    (tmp_path / "with.yaml").write_text("fedfab_args:\n  coordinator_url: http://127.0.0.1:1\n")
    (tmp_path / "without.yaml").write_text("train_args:\n  comm_round: 1\n")
    return str(tmp_path / "site")


SCRIPT = """
import sys
import fedml, fedml_fedfab
{line}
print("went on")
"""


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ("pass", ["--cf", "with.yaml"]),
        ("pass", ["--cf=with.yaml"]),
        ("fedml.init(file='with.yaml')", []),
        ("fedml.init(fedml.Args('with.yaml'))", []),
        ("fedml.FedMLRunner(fedml.Args('with.yaml'))", []),
        ("fedml.FedMLRunner(device=1, args=fedml.Args('with.yaml'))", []),
    ],
)
def test_an_unknown_fedml_is_refused_where_the_plug_in_is_asked_for(
    tmp_path: Path, fake_fedml: str, line: str, arguments: list[str]
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.format(line=line))
    done = run(tmp_path, "script.py", *arguments, path=fake_fedml)
    assert done.returncode == 1
    assert "this is FedML 0.1.0; fedml-fedfab works with 0.8.50 and 0.9.6" in done.stderr
    assert "went on" not in done.stdout


def test_an_unknown_fedml_without_the_section_behaves_as_before(tmp_path: Path, fake_fedml: str) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.format(line="fedml.FedMLRunner(fedml.init(file='without.yaml'))"))
    done = run(tmp_path, "script.py", "--cf", "without.yaml", path=fake_fedml)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["made a runner for without.yaml", "went on"]
    assert "the plug-in stays out: this is FedML 0.1.0" in done.stderr


@pytest.mark.parametrize("python", [(3, 7), (3, 13), (3, 14), (4, 0)])
def test_other_pythons_are_refused_with_what_to_do(python: tuple[int, int]) -> None:
    with pytest.raises(UnsupportedFedMLError, match=r"work on 3\.8 to 3\.12: make an environment"):
        check_version(SUPPORTED[0], python)


def test_a_fedml_that_cannot_be_imported_on_this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    # The package's name `install` is the function in it.
    module = importlib.import_module("fedml_fedfab.install")
    monkeypatch.setitem(sys.modules, "fedml", None)
    with pytest.raises(ImportError):
        module.install()

    def check() -> None:
        raise UnsupportedFedMLError("this is Python 3.13")

    monkeypatch.setattr(module, "check_python", check)
    with pytest.raises(UnsupportedFedMLError, match="this is Python"):
        module.install()


def test_the_pythons_are_those_that_pip_is_told_of() -> None:
    first, last = PYTHONS
    for version in (first, last):
        check_version(SUPPORTED[0], version)
    project = (REPOSITORY / "fedml" / "pyproject.toml").read_text()
    assert f'requires-python = ">={first[0]}.{first[1]},<{last[0]}.{last[1] + 1}"' in project
    source = (REPOSITORY / "coordinator" / "demo" / "python.ts").read_text()
    assert f"{{ lowest: {first[1]}, highest: {last[1]} }}" in source


def test_without_a_script_it_says_how_it_is_used(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 2
    assert "usage: python -m fedml_fedfab script.py" in done.stderr
