"""The command line itself."""

import io
import os
import subprocess
import sys

import pytest

from mbrl_bilevel.scripts import main as command_line
from mbrl_bilevel.scripts.main import CLOSED_PIPE, COMMANDS, main, run


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    agent = ["--agent", "sac"] if command == "train-agent" else []
    with pytest.raises(SystemExit) as end:
        run([command, *agent, "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert {"--seed", "--device", "--json"} <= set(shown.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_quick_because_it_imports_little(command):
    agent = ["--agent", "mbpo"] if command == "train-agent" else []
    slow = {"torch", "gymnasium", "matplotlib", "scipy", "typeguard"}  # the last for some types
    code = (
        "import atexit, sys\n"
        "from mbrl_bilevel.scripts.main import main\n"
        f"slow = {slow}\n"
        "atexit.register(lambda: print('imported', *slow & set(sys.modules), file=sys.stderr))\n"
        "main()"
    )
    line = [sys.executable, "-c", code, command, *agent, "--help"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stderr == "imported\n"


def test_an_unknown_command_is_named_with_the_known_ones(capsys):
    assert run(["trian-model"]) == 2
    error = capsys.readouterr().err
    assert "'trian-model'" in error
    assert "train-model" in error


def test_an_unknown_flag_ends_with_exit_code_2(capsys):
    assert run(["bench", "--nonsense"]) == 2
    assert "--nonsense is no flag of bench: leave it out" in capsys.readouterr().err


def test_the_installed_command_prints_its_table():
    done = subprocess.run(
        [sys.executable, "-c", "from mbrl_bilevel.scripts.main import main; main()"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("argv", [["--help"], ["train-model", "--help"], ["eval-model"]])
def test_a_closed_pipe_ends_quietly(argv, monkeypatch, capsys):
    """As after `| head -1`; eval-model stands for every outcome that is printed at the end."""
    if argv == ["eval-model"]:
        monkeypatch.setattr(command_line, "_run", lambda _: print("{}", flush=True))
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as nobody:
        monkeypatch.setattr(sys, "stdout", nobody)
        monkeypatch.setattr(sys, "argv", ["mbrl-bilevel", *argv])
        with pytest.raises(SystemExit) as end:
            main()
        print("what is left is dropped", file=nobody, flush=True)
    assert end.value.code == CLOSED_PIPE
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_an_output_that_cannot_be_written_is_one_sentence(monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "argv", ["mbrl-bilevel", "--help"])
        with pytest.raises(SystemExit) as end:
            main()
    assert "the output cannot be written (No space left on device)" in str(end.value.code)


def test_an_ascii_terminal_is_shown_what_it_knows(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "argv", ["mbrl-bilevel", "sanity"])
    monkeypatch.setattr(command_line, "run", lambda _: print("1 \u00b1 2") or 0)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert terminal.buffer.getvalue() == b"1 \\xb1 2\n"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_want_of_memory_is_one_sentence(error, monkeypatch, capsys):
    def fail(_):
        raise error

    monkeypatch.setattr(command_line, "_run", fail)
    assert run(["train-model"]) == 1
    assert "not enough memory" in capsys.readouterr().err


def test_other_failures_keep_their_traceback(monkeypatch):
    def fail(_):
        raise RuntimeError("a fault of the program")

    monkeypatch.setattr(command_line, "_run", fail)
    with pytest.raises(RuntimeError, match="a fault"):
        run(["train-model"])
