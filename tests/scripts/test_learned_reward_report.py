"""The learned U of each dimension, from numbers or as a run has drawn it."""

import base64

from mbrl_bilevel.scripts.learned_reward_report import learned_reward
from mbrl_bilevel.scripts.run_groups import grouped
from mbrl_bilevel.scripts.run_reading import read_run
from tests.scripts.run_folders import model_run


def of(*folders):
    return learned_reward("hopper", grouped([read_run(folder) for folder in folders]), 0)


def test_medians_of_the_seeds_stand_by_dimension(tmp_path):
    U = [{"x": 1.0, "y": 2.0}, {"x": 3.0, "y": None}, {"x": 5.0, "y": 8.0}]
    folders = [
        model_run(tmp_path / f"{i}", i, 0.1, objective="bilevel", summary={"learned_U": one})
        for i, one in enumerate(U)
    ]
    folders.append(model_run(tmp_path / "nll", 0, 0.1, summary={"learned_U": None}))
    table, picture = of(*folders)
    assert table.columns == ["dimension", "bilevel"]
    assert [(row[0], row[1].value) for row in table.rows] == [("x", 3.0), ("y", 5.0)]
    assert "bilevel" in picture.svg


def test_a_run_without_the_numbers_shows_its_own_figure(tmp_path):
    folder = model_run(tmp_path / "run", 0, 0.1, objective="bilevel")
    (folder / "figures").mkdir()
    (folder / "figures/learned_U.png").write_bytes(b"a picture")
    (picture,) = of(folder, model_run(tmp_path / "nll", 0, 0.1))
    assert base64.b64decode(picture.png) == b"a picture"
    assert str(folder) in picture.caption
