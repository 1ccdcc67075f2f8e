"""The peers' own virtual environment: they are no dependency of this package.

It is made once, in the user's cache folder, and shows the packages of this environment behind its
own, so that torch, gymnasium and Minari are the same on both sides and are not installed twice.
mbrl is installed without its dependencies, whose pins no current Python can satisfy; what it
imports is named here.
"""

import hashlib
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from mbrl_bilevel.data.tensor_cache import cache_folder
from mbrl_bilevel.errors import InputError

REQUIREMENTS = (
    "mbrl==0.2.0",
    "hydra-core>=1.3,<1.4",
    "omegaconf>=2.3,<3",
    "antlr4-python3-runtime>=4.9,<4.10",
    "termcolor",
    "stable-baselines3>=2.7,<3",
    "pytorch-mppi>=0.9,<1",
    "arm-pytorch-utilities>=0.4",
    "pytorch-seed",
)
MADE = "made"  # a file that is written last


def peers_python(folder: Path | None = None) -> Path:
    """The Python of the peers' environment, which is made if there is none yet.

    Raises:
        InputError: it cannot be made: no home folder, no installer, or an installer that failed, as
            it does without a network.
    """
    folder = folder or environment_folder()
    python = folder / "bin" / "python"
    if (folder / MADE).is_file() and python.exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    for command in _commands(folder, python):
        _run(command, folder)
    here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    link = "import site; " + "; ".join(f"site.addsitedir({path!r})" for path in sorted(here))
    _packages(folder).joinpath("behind.pth").write_text(f"{link}\n")
    (folder / MADE).touch()
    return python


def environment_folder() -> Path:
    """Where it lies: another folder for another Python, torch or list of peers.

    Raises:
        InputError: the user has no home folder.
    """
    cache = cache_folder()
    if cache is None:
        raise InputError(
            "--peers keeps an environment in the cache folder, and there is none: set "
            "XDG_CACHE_HOME to a folder that you may write"
        )
    told = repr((sys.prefix, sys.version, version("torch"), REQUIREMENTS))
    return cache / f"peers-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def is_made() -> bool:
    """Whether the environment is there already."""
    return (environment_folder() / MADE).is_file()


def _commands(folder: Path, python: Path) -> list[list[str]]:
    uv = shutil.which("uv")
    if uv is not None:
        install = [uv, "pip", "install", "-q", "--python", str(python), "--no-deps"]
        return [
            [uv, "venv", "-q", "--python", sys.executable, str(folder)],
            [*install, *REQUIREMENTS],
        ]
    if find_spec("ensurepip") is None:
        raise InputError(
            "--peers installs other libraries by uv or pip, and neither is here: install uv"
        )
    return [
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "-q", "--no-deps", *REQUIREMENTS],
    ]


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said, failed = done.stderr or done.stdout, done.returncode != 0
    except OSError as error:
        said, failed = str(error), True
    if failed:
        words = " ".join(said.split())[:300]
        raise InputError(
            f"the peers' environment cannot be made in {folder} ({words}); --peers needs a "
            "network, or leave --peers out"
        )


def _packages(folder: Path) -> Path:
    names = {"base": str(folder), "platbase": str(folder)}
    return Path(sysconfig.get_path("purelib", "venv", names))
