"""Scripts that processes cannot read again say what to write, at once."""

import subprocess
import sys
import types
from pathlib import Path

import pytest

from mbrl_bilevel.agents import main_script, parallel
from mbrl_bilevel.agents.main_script import check_main_script, why_never_started
from mbrl_bilevel.errors import InputError

EVALUATE = """
import sys
from mbrl_bilevel.scripts.main import run
flags = "eval-agent --agent policy --policy random --env Pendulum-v1 --episodes 1 --max-steps 2"
sys.exit(run([*flags.split(), "--out", sys.argv[1]]))
"""
INDENTED = "".join(f"    {line}\n" for line in EVALUATE.strip().splitlines())


def as_main(monkeypatch: pytest.MonkeyPatch, file: object, spec: object = None) -> None:
    main = types.ModuleType("__main__")
    main.__spec__ = spec  # type: ignore[assignment]
    if file is not None:
        main.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "__main__", main)


@pytest.mark.situation("refused")
def test_a_script_that_cannot_be_read_again_or_would_run_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    as_main(monkeypatch, "<stdin>")
    with pytest.raises(
        InputError, match=r"the script <stdin> cannot be read by .* write it to a file"
    ):
        check_main_script()
    script = tmp_path / "mine.py"
    script.write_text(EVALUATE)
    as_main(monkeypatch, script)
    with pytest.raises(InputError, match=r"mine.py again.* under `if __name__ == \"__main__\":`"):
        check_main_script()


def test_a_guarded_script_a_module_and_a_session_are_fine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "mine.py"
    script.write_text('if __name__ == "__main__":\n' + INDENTED)
    as_main(monkeypatch, script)
    check_main_script()
    assert "runs this again when it is read" in why_never_started()
    as_main(monkeypatch, "gone.py", spec=object())  # python -m
    check_main_script()
    as_main(monkeypatch, None)  # python -c, or a session
    check_main_script()
    assert why_never_started() == main_script.KILLED


def ended(command: list[str], script: str | None = None) -> tuple[int, list[str]]:
    done = subprocess.run(
        command, input=script, capture_output=True, text=True, timeout=300, check=False
    )
    assert "Traceback" not in done.stderr
    return done.returncode, [line for line in done.stderr.splitlines() if "mbrl-bilevel" in line]


@pytest.mark.slow
@pytest.mark.situation("refused")
def test_a_command_from_standard_input_or_without_a_guard(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, (line,) = ended([sys.executable, "-", str(out)], EVALUATE)
    assert code == 2
    assert "write it to a file" in line
    script = tmp_path / "mine.py"
    script.write_text(EVALUATE)
    code, (line,) = ended([sys.executable, str(script), str(out)])
    assert code == 2
    assert f"read {script} again" in line
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.situation("right")
def test_a_guarded_command_runs(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text('if __name__ == "__main__":\n' + INDENTED)
    assert ended([sys.executable, str(script), str(tmp_path / "out")])[0] == 0


@pytest.mark.slow
@pytest.mark.situation("refused")
def test_a_command_beside_its_guard_is_run_once_and_says_so(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text('if __name__ == "__main__":\n    pass\n' + EVALUATE)
    code, lines = ended([sys.executable, str(script), str(tmp_path / "out")])
    assert code == 1
    assert f"or {script} runs this again when it is read: put it under" in lines[-1]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["eval-001"]


@pytest.mark.slow
def test_workers_that_had_begun_died_of_something_else() -> None:
    with pytest.raises(
        parallel.WorkerDied, match=r"unfinished \(killed, perhaps for want of memory\)"
    ):
        list(parallel.play_episodes(_killed, 1, workers=1))


def _killed(index: int, on_step: object) -> parallel.Episode:
    import os

    os._exit(9)
