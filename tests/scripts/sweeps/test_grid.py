"""The product of axes, and flags that belong to one value."""

import pytest

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.scripts.sweeps.grid import points


def flags(stage):
    return [point.flags for point in points(stage)]


def test_lists_are_axes_of_the_product_the_last_fastest():
    found = points({"objective": ["mse", "nll"], "steps": "30", "seed": ["0", "1"]})
    assert [(p.flags["objective"], p.flags["seed"]) for p in found] == [
        ("mse", "0"),
        ("mse", "1"),
        ("nll", "0"),
        ("nll", "1"),
    ]
    assert all(p.flags["steps"] == "30" for p in found)
    assert found[1].axes == {"objective": "mse", "seed": "1"}


def test_flags_of_a_value_go_with_it_alone_and_take_precedence_wherever_they_stand():
    value = {"bilevel": {"steps": "80", "outer_learning_rate": ["0.1", "0.2"]}}
    for stage in (
        {"objective": ["mse", value], "steps": "30"},
        {"steps": "30", "objective": ["mse", value]},
    ):
        assert [dict(sorted(f.items())) for f in flags(stage)] == [
            {"objective": "mse", "steps": "30"},
            {"objective": "bilevel", "outer_learning_rate": "0.1", "steps": "80"},
            {"objective": "bilevel", "outer_learning_rate": "0.2", "steps": "80"},
        ]
    assert points(stage)[2].axes == {"objective": "bilevel", "outer_learning_rate": "0.2"}


def test_a_value_alone_is_no_axis_and_a_list_of_one_is():
    assert points({"seed": "3"})[0].axes == {}
    assert points({"seed": ["3"]})[0].axes == {"seed": "3"}
    (found,) = points({"objective": {"bilevel": {"steps": "80"}}})
    assert found.flags == {"objective": "bilevel", "steps": "80"}
    assert found.axes == {}


def test_stages_that_follow_a_value_come_after_those_of_all():
    found = points({"then": {"command": "a"}, "dataset": ["x", {"y": {"then": {"command": "b"}}}]})
    assert [p.then for p in found] == [({"command": "a"},), ({"command": "a"}, {"command": "b"})]


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"seed": []}, "seed is an axis without values"),
        ({"steps": ""}, "steps has an empty value"),
        ({"seed": ["0", ""]}, "seed has an empty value"),
        ({"fit": {"steps": "3"}}, "fit holds a mapping of steps"),
        ({"objective": [{"a": {}, "b": {}}]}, "objective holds a mapping of a, b"),
        ({"seed": [["0"]]}, "seed has an empty value"),
        (
            {"seed": ["0", "1"], "objective": {"bilevel": {"seed": "2"}}},
            "seed is an axis, and is 2 under a value",
        ),
        (
            {"objective": {"mse": {"steps": "2"}}, "dataset": {"x": {"steps": "3"}}},
            "steps is given under a value of two keys",
        ),
    ],
)
def test_what_cannot_be_multiplied_is_refused(stage, words):
    with pytest.raises(InputError, match=words):
        points(stage)
