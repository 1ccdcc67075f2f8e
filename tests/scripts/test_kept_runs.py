"""A kept folder is new, or holds the run that would be made now."""

import pytest

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.scripts.kept_runs import refuse_another_run
from mbrl_bilevel.training.folder_lock import LOCK

RUN = {"steps": 30, "hidden": [8, 8], "later": None}


def holding(folder, **files):
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    "files",
    [{}, {LOCK: ""}, {"config.yaml": "steps: 30\nhidden: [8, 8]\nfingerprint: {steps: 5}\n"}],
)
def test_new_folders_and_the_same_run_are_taken(tmp_path, files):
    refuse_another_run(tmp_path / "new", RUN)
    refuse_another_run(holding(tmp_path / "run", **files), RUN)


@pytest.mark.situation("refused")
@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"config.yaml": "steps: 31"}, r"run has other settings, steps 31 \(now 30\): give"),
        (
            {"config.yaml": "hidden: [8]\nsteps: 31"},
            r"settings, hidden \[8\] \(now \[8, 8\]\), steps 31 \(now 30\): give the same, or",
        ),
        ({"config.yaml": "steps: ["}, "config.yaml is damaged"),
        ({"config.yaml": ""}, "config.yaml is damaged"),
        ({"notes.txt": "mine"}, "is no run of train-agent: choose another --out"),
    ],
)
def test_anything_else_is_refused(tmp_path, files, sentence):
    with pytest.raises(InputError, match=sentence):
        refuse_another_run(holding(tmp_path / "run", **files), RUN)


@pytest.mark.situation("refused")
def test_a_file_is_refused(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(InputError, match="is no run of train-agent"):
        refuse_another_run(tmp_path / "run", RUN)
