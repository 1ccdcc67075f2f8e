"""The command line itself."""

import subprocess
import sys

import pytest

from mbrl_bilevel.scripts.main import COMMANDS, run


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as end:
        run([command, "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert {"--seed", "--device", "--json"} <= set(shown.split())


def test_an_unknown_command_is_named_with_the_known_ones(capsys):
    assert run(["trian-model"]) == 2
    error = capsys.readouterr().err
    assert "'trian-model'" in error
    assert "train-model" in error


def test_an_unknown_flag_ends_with_exit_code_2(capsys):
    with pytest.raises(SystemExit) as end:
        run(["bench", "--nonsense"])
    assert end.value.code == 2


def test_the_installed_command_prints_its_table():
    done = subprocess.run(
        [sys.executable, "-c", "from mbrl_bilevel.scripts.main import main; main()"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert all(name in done.stdout for name in COMMANDS)
