"""``python -m fedml_fedfab script.py …``: runs a FedML script as it is, with the plug-in."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

USAGE = """\
usage: python -m fedml_fedfab script.py [arguments of the script]
       python -m fedml_fedfab -m module [arguments]"""


def main(arguments: list[str] | None = None) -> int:
    """Run the script; returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help") or given == ["-m"]:
        sys.stderr.write(f"{USAGE}\n")
        return 0 if given[:1] in (["-h"], ["--help"]) else 2
    from .errors import FedfabError

    try:
        _run(given)
    except FedfabError as error:
        sys.stderr.write(f"fedml_fedfab: {error}\n")
        return 1
    return 0


def _run(given: list[str]) -> None:
    from .errors import UnsupportedFedMLError
    from .install import fedml_is_here

    if given[0] == "-m":
        sys.argv = given[1:]
        sys.path.insert(0, str(Path.cwd()))
    else:
        sys.argv = given
        # As Python itself does it: the script's folder comes first.
        sys.path.insert(0, str(Path(given[0]).resolve().parent))
    if not fedml_is_here():
        raise UnsupportedFedMLError("FedML is not installed here: pip install fedml==0.9.6")
    if given[0] == "-m":
        runpy.run_module(given[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(given[0], run_name="__main__")


if __name__ == "__main__":
    sys.exit(main())
