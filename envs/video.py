"""Videos of MuJoCo environments, on machines with and without a screen."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import imageio.v2 as imageio
import numpy as np

from mbrl_bilevel.errors import InputError

HEADLESS = ("egl", "osmesa")

# Rendering depends on drivers that may kill the process instead of raising: tried in another one.
PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><light pos='0 0 2'/><geom size='1'/></worldbody></mujoco>"
)
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 16, 16) as renderer:
    renderer.update_scene(data)
    assert renderer.render().any()
"""


def rendering_backend() -> str:
    """The value of MUJOCO_GL that renders here: the one that is set, else egl, else osmesa.

    MuJoCo reads the variable once, when it is first imported, so set it before (or in a new
    process, see `mujoco_gl`).

    Raises:
        InputError: none of them renders an image.
    """
    wanted = os.environ.get("MUJOCO_GL")
    for backend in [wanted] if wanted else HEADLESS:
        if _renders(backend):
            return backend
    tried = f"MUJOCO_GL={wanted}" if wanted else "neither MUJOCO_GL=egl nor MUJOCO_GL=osmesa"
    verb = "does not render" if wanted else "renders"
    raise InputError(
        f"--video: {tried} {verb} here; install the Debian packages libegl1 (for egl) or "
        "libosmesa6 (for osmesa), or leave --video out"
    )


def _renders(backend: str) -> bool:
    command = [sys.executable, "-c", PROBE]
    try:
        done = subprocess.run(
            command, env={**os.environ, "MUJOCO_GL": backend}, capture_output=True, timeout=120
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


@contextmanager
def mujoco_gl(backend: str | None) -> Iterator[None]:
    """Sets MUJOCO_GL for the processes started meanwhile; None leaves it as it is."""
    before = os.environ.get("MUJOCO_GL")
    if backend is not None:
        os.environ["MUJOCO_GL"] = backend
    try:
        yield
    finally:
        if before is not None:
            os.environ["MUJOCO_GL"] = before
        elif backend is not None:
            del os.environ["MUJOCO_GL"]


@contextmanager
def write_video(path: Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Opens an mp4 and yields the function that adds a frame [height width 3] of bytes to it."""
    writer = imageio.get_writer(path, fps=fps)
    try:
        yield writer.append_data
    finally:
        writer.close()
