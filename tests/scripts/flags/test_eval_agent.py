"""Which flags eval-agent has, and which of them --help shows."""

import re
from pathlib import Path

import pytest

from mbrl_bilevel.agents.planning_settings import setting_names
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.planning.settings import PLANNERS
from mbrl_bilevel.scripts.flags.eval_agent import Config, flag_groups, parse

GROUPS = ["run", "environment", "agent", "planner", "evaluation"]


def helped(*flags: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        parse([*flags, "--help"])
    assert exit_.value.code == 0
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def flags_in(text: str) -> set[str]:
    return set(re.findall(r"^\W (?:-h, )?--([a-z][a-z-]*)", text, flags=re.M))


@pytest.mark.parametrize("planner", PLANNERS.names)
@pytest.mark.parametrize("simulator", [False, True])
def test_help_shows_the_flags_of_the_planner_that_is_named(
    planner: str, simulator: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--model", "simulator"] if simulator else []
    text = helped("--agent", "mpc", "--planner", planner, *model, capsys=capsys)
    shown = flags_in(text)
    assert len(shown) < 37
    every = {name for one in PLANNERS.names for name in setting_names(one)}
    own = set(setting_names(planner, simulator=simulator))
    assert {name.replace("_", "-") for name in own} <= shown
    assert not {name.replace("_", "-") for name in every - own} & shown
    assert re.findall(r"\W (\w+) options \W", text) == GROUPS
    assert f"Planning by {planner}." in text
    words = " ".join(re.findall(r"[^\s│|]+", text))
    assert "(default: 128, or by task)" in words


def test_help_of_policies_shows_no_flag_of_planning(capsys: pytest.CaptureFixture[str]) -> None:
    shown = flags_in(helped("--agent=policy", capsys=capsys))
    assert "policy" in shown
    assert not {"horizon", "discount", "propagation"} & shown


def test_help_of_several_planners_shows_what_any_of_them_has(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = flags_in(helped("--planner", "cem", "mppi", capsys=capsys))
    assert {"elites", "temperature"} <= shown
    assert "keep" not in shown


def test_a_command_line_gives_what_was_named_and_nothing_else() -> None:
    line = "--model a b --planner cem mppi --horizon 7 --init_std=0.2 --terminal-value rest --json"
    found = parse(line.split())
    assert found == Config(
        model=(Path("a"), Path("b")),
        planner=("cem", "mppi"),
        json=True,
        planning={"horizon": 7, "init_std": 0.2, "terminal_value": "rest"},
    )
    assert parse([]) == Config()
    assert parse(["--model", "a"]).models == (Path("a"),)
    assert parse([]).planners == ("icem",)
    assert parse(["--prior", "medium"]).planners == ("mppi",)
    assert parse(["--prior", "medium", "--planner", "cem"]).planners == ("cem",)


def test_a_flag_that_there_is_none_of_is_refused() -> None:
    with pytest.raises(InputError, match="--survival is no flag of eval-agent"):
        parse(["--survival", "1"])


def test_no_name_is_a_flag_twice() -> None:
    names = [name for group in flag_groups(PLANNERS.names).values() for name in group.hints]
    assert len(names) == len(set(names))
