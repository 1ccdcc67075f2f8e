"""A sweep's file: text as it stands there, and settings in its place."""

import pytest

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.scripts.sweeps.sweep_file import read_stages


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "sweep.yaml"
        path.write_text(text)
        return path

    return write


def test_values_are_the_words_of_a_command_line(file):
    found = read_stages(file("learn_reward: yes\nlr: 1e-3\nseed: [0, 01]\nhidden: 8 8\n"), ())
    assert found == [{"learn_reward": "yes", "lr": "1e-3", "seed": ["0", "01"], "hidden": "8 8"}]


def test_settings_replace_and_add_keys(file):
    path = file("steps: 30\nseed: [0, 1]\n")
    found = read_stages(path, ("seed=5", "objective=mse,nll", "clip-norm=2", "hidden=8 8"))
    assert found == [
        {
            "steps": "30",
            "seed": "5",
            "objective": ["mse", "nll"],
            "clip_norm": "2",
            "hidden": "8 8",
        }
    ]
    assert read_stages(None, ("command=train-model",)) == [{"command": "train-model"}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it holds no mapping"),
        ("- a\n", "it holds no mapping"),
        ("[]", "it holds no mapping"),
        ("a: [1", "is no sweep's file"),
        ("a: 1\na: 2\n", "it has a twice"),
        ("a: &x 1\nb: *x\n", "aliases"),
    ],
)
def test_other_files_are_refused(file, text, words):
    with pytest.raises(InputError, match=words):
        read_stages(file(text), ())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ((), "name the sweep's YAML file"),
        (("steps",), "--set steps: give KEY=VALUE"),
        (("steps=",), "--set steps=: give KEY=VALUE"),
    ],
)
def test_settings_need_a_key_and_a_value(settings, words):
    with pytest.raises(InputError, match=words):
        read_stages(None, settings)


def test_a_missing_file_and_settings_of_several_stages_are_refused(file, tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.yaml is no sweep's file"):
        read_stages(tmp_path / "nowhere.yaml", ())
    with pytest.raises(InputError, match="holds 2 stages; change the file"):
        read_stages(file("- {a: 1}\n- {a: 2}\n"), ("a=3",))
