"""Which flags a command line names, and those that there are none of."""

import pytest

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.scripts.flags.words import refuse_unknown, values_of


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("--planner cem mppi --seed 3", ["cem", "mppi"]),
        ("--seed 3 --planner=cem", ["cem"]),
        ("--planner cem --seed 3 --planner icem", ["icem"]),
        ("--planner", []),
        ("--planners cem --seed 3", []),
    ],
)
def test_the_values_of_a_flag(line: str, values: list[str]) -> None:
    assert values_of("planner", line.split()) == values


def test_names_with_underscores_are_the_same_flag() -> None:
    assert values_of("other_env", ["--other_env"]) == values_of("other_env", ["--other-env"]) == []
    assert values_of("max_steps", ["--max_steps", "3"]) == ["3"]
    refuse_unknown("x", ["--max_steps", "-3", "--help"], {"max_steps": int})


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--max-step 3", "--max-step is no flag of x: did you mean --max-steps?"),
        ("--max-steps 3 --quux=4", "--quux is no flag of x: leave it out"),
    ],
)
def test_other_flags_are_refused(line: str, sentence: str) -> None:
    with pytest.raises(InputError) as found:
        refuse_unknown("x", line.split(), {"max_steps": int, "seed": int})
    assert str(found.value).startswith(sentence)
