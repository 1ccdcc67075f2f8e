import os
from contextlib import closing
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest

from mbrl_bilevel.envs import video
from mbrl_bilevel.errors import InputError


def test_frames_come_back(tmp_path: Path) -> None:
    frames = [np.full((64, 96, 3), level, dtype=np.uint8) for level in (30, 120, 220)]
    path = tmp_path / "film.mp4"
    with video.write_video(path, fps=10.0) as add:
        for frame in frames:
            add(frame)
    read = imageio.mimread(path)
    with closing(imageio.get_reader(path)) as reader:
        assert reader.get_meta_data()["fps"] == pytest.approx(10)
    assert [frame.shape for frame in read] == [(64, 96, 3)] * 3
    np.testing.assert_allclose([frame.mean() for frame in read], [30, 120, 220], atol=4)


def test_a_forced_backend_that_does_not_render_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    with pytest.raises(
        InputError, match=r"MUJOCO_GL=disabled does not render.*libegl1.*libosmesa6"
    ):
        video.rendering_backend()


def test_egl_goes_before_osmesa(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    for works, expected in ((("egl", "osmesa"), "egl"), (("osmesa",), "osmesa")):
        monkeypatch.setattr(video, "_renders", works.__contains__)
        assert video.rendering_backend() == expected
    monkeypatch.setattr(video, "_renders", lambda backend: False)
    with pytest.raises(InputError, match="neither MUJOCO_GL=egl nor MUJOCO_GL=osmesa renders"):
        video.rendering_backend()


@pytest.mark.parametrize("before", [None, "osmesa"])
def test_the_environment_variable_is_put_back(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    if before is not None:
        monkeypatch.setenv("MUJOCO_GL", before)
    with video.mujoco_gl("egl"):
        assert os.environ["MUJOCO_GL"] == "egl"
    with video.mujoco_gl(None):
        assert os.environ.get("MUJOCO_GL") == before
    assert os.environ.get("MUJOCO_GL") == before
