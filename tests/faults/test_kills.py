"""Killed at random moments and started again, every command ends as if nothing had been."""

import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults.cases import CASES
from tests.faults.conftest import Tally, Whole, start

IN_A_ROW = 4  # kills of one run before it may come to its end


def killed_and_resumed(name: str, place: Path, seconds: float, kills: int, seed: int) -> int:
    """Kills the command `kills` times, spread over the `seconds` it takes, then lets it finish.

    Returns how often it was still there to be killed.
    """
    case, moments, killed = CASES[name], random.Random(seed), 0
    for _ in range(kills):
        command = start(case.at(place, again=case.started(place)))
        time.sleep(moments.uniform(0.0, 1.5 * seconds / kills))
        was_there = command.kill(signal.SIGKILL)
        code, said = command.end()
        assert "Traceback" not in said, said
        assert code == (128 + signal.SIGKILL if was_there else 0) or code == 0, said
        killed += code != 0
        case.state(place)  # whatever stands there can be read
    code, said = start(case.at(place, again=case.started(place))).end()
    assert code == 0, said
    return killed


def kill_until(name: str, wanted: int, whole: Whole, folder: Path, tally: Tally) -> None:
    expected, seconds = whole(name)
    done = attempt = 0
    while done < wanted:
        place = folder / f"{name.split()[0]}-{attempt}"
        in_a_row = min(IN_A_ROW, wanted - done)
        killed = killed_and_resumed(name, place, seconds, in_a_row, attempt)
        with tally.fault(f"kill -9: {name}", killed):
            assert CASES[name].state(place) == expected
        done, attempt = done + killed, attempt + 1


@pytest.mark.parametrize("name", ["train-model nll", "collect"])
def test_killed_twice(name: str, whole: Whole, tmp_path: Path, tally: Tally) -> None:
    kill_until(name, 2, whole, tmp_path, tally)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_killed_twenty_times(name: str, whole: Whole, tmp_path: Path, tally: Tally) -> None:
    kill_until(name, 20, whole, tmp_path, tally)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_answered_by_a_checkpoint_and_how_to_go_on(
    number: signal.Signals, whole: Whole, tmp_path: Path, tally: Tally
) -> None:
    case, place = CASES["train-model nll"], tmp_path / "run"
    expected, _ = whole("train-model nll")
    with tally.fault(f"{number.name}: train-model"):
        command = start(case.at(place))
        command.wait_for(place / "metrics.jsonl")
        command.kill(number)
        code, said = command.end()
        assert code == 128 + number, said
        last = said.splitlines()[-1]
        assert last.startswith(f"mbrl-bilevel train-model: interrupted by {number.name} at step ")
        assert last.endswith(" --resume")
        code, said = start(case.at(place, again=True)).end()
        assert code == 0, said
        assert case.state(place) == expected


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(whole: Whole, tmp_path: Path, tally: Tally) -> None:
    case, place = CASES["train-model nll"], tmp_path / "run"
    expected, _ = whole("train-model nll")
    with tally.fault("SIGINT twice: train-model"):
        command = start(case.at(place))
        command.wait_for(place / "metrics.jsonl")
        command.kill(signal.SIGINT)
        command.kill(signal.SIGINT)
        code, said = command.end()
        assert code == 130, said
        assert "Traceback" not in said
        code, said = start(case.at(place, again=True)).end()
        assert code == 0, said
        assert case.state(place) == expected


def test_a_second_run_into_one_folder_is_refused_until_the_first_is_dead(
    whole: Whole, tmp_path: Path, tally: Tally
) -> None:
    case, place = CASES["train-model nll"], tmp_path / "run"
    expected, _ = whole("train-model nll")
    with tally.fault("two runs in one folder", 2):
        first = start(case.at(place))
        first.wait_for(place / "config.yaml")
        assert first.kill(signal.SIGSTOP)  # or it might be done before the second begins
        for again in (False, True):
            code, said = start(case.at(place, again)).end()
            assert code == 2, said
            assert said.splitlines()[-1].startswith(
                "mbrl-bilevel train-model: another run is writing to"
            )
        assert first.kill(signal.SIGKILL)
        first.end()
        code, said = start(case.at(place, again=True)).end()
        assert code == 0, said
        assert case.state(place) == expected
