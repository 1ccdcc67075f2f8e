"""Making the peers' environment, with installers that are a few lines of shell."""

import subprocess
import sys
from pathlib import Path

import pytest

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.scripts.main import run
from mbrl_bilevel.scripts.peers import environment

VENV = 'case "$1" in venv) {python} -m venv --without-pip "${{@: -1}}";; esac\n'
NOTES = 'echo "$@" >> {notes}\n'
OFFLINE = (
    'case "$1" in pip) echo "error: Failed to fetch: network unreachable" >&2; exit 2;; esac\n'
)


@pytest.fixture
def installer(tmp_path, monkeypatch):
    """Puts a program of these lines in uv's place; returns the file of its calls."""
    notes = tmp_path / "calls"

    def put(*lines: str) -> Path:
        folder = tmp_path / "programs"
        folder.mkdir()
        program = folder / "uv"
        text = "".join(lines).format(python=sys.executable, notes=notes)
        program.write_text(f"#!/bin/bash\n{text}")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        return notes

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return put


def test_it_is_made_once_and_shows_this_environment_behind_its_own(installer):
    notes = installer(NOTES, VENV)
    python = environment.peers_python()
    assert environment.is_made()
    told = subprocess.run(
        [python, "-c", "import sys, torch, mbrl_bilevel; print(sys.prefix, torch.__file__)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    import torch

    assert told == [str(python.parents[1]), torch.__file__]
    made, installed = notes.read_text().splitlines()
    assert made.startswith("venv ")
    assert installed.split()[:2] == ["pip", "install"]
    assert "--no-deps" in installed
    assert set(environment.REQUIREMENTS) <= set(installed.split())
    assert environment.peers_python() == python
    assert len(notes.read_text().splitlines()) == 2


def test_one_that_was_left_half_made_is_made_anew(installer):
    notes = installer(NOTES, VENV)
    folder = environment.environment_folder()
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    (folder / "stale").touch()
    environment.peers_python()
    assert not (folder / "stale").exists()
    assert len(notes.read_text().splitlines()) == 2


def test_without_a_network_it_is_one_sentence_and_exit_code_2(installer, capsys):
    installer(VENV, OFFLINE)
    assert run(["bench", "fit", "--peers"]) == 2
    captured = capsys.readouterr()
    last = captured.err.splitlines()[-1]
    assert last.startswith("mbrl-bilevel bench: the peers' environment cannot be made in ")
    assert "network unreachable" in last
    assert "--peers needs a network" in last
    assert captured.out == ""
    assert not environment.is_made()


def test_without_an_installer_it_is_one_sentence(installer, monkeypatch):
    installer()
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)
    monkeypatch.setattr(environment, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="by uv or pip, and neither is here"):
        environment.peers_python()


def test_pip_takes_the_place_of_uv(tmp_path, monkeypatch):
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)
    python = tmp_path / "bin/python"
    made, installed = environment._commands(tmp_path, python)
    assert made == [sys.executable, "-m", "venv", str(tmp_path)]
    assert installed[:4] == [str(python), "-m", "pip", "install"]
    assert installed[-len(environment.REQUIREMENTS) :] == list(environment.REQUIREMENTS)
