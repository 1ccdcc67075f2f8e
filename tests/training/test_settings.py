"""Settings of a fit: refused where they are built, and known without torch."""

import subprocess
import sys

import pytest

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.training.settings import FitSettings


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"steps": 0}, "--steps 0: choose at least 1"),
        ({"learning_rate": -1.0}, "--learning-rate -1.0: choose a number above 0"),
        ({"learning_rate": float("inf")}, "--learning-rate inf: choose a finite number"),
        ({"clip_norm": 0.0}, "--clip-norm 0.0: choose a number above 0"),
        ({"patience": 0}, "--patience 0: choose at least 1"),
        ({"evaluate_every": 0}, "--evaluate-every 0: choose at least 1"),
        ({"weight_decay": 400.0}, "a weight decay of 400.0 at a learning rate of 0.003"),
    ],
)
def test_values_out_of_range_are_refused(given, words):
    with pytest.raises(InputError, match=words):
        FitSettings(**given)


def test_patience_and_clipping_can_be_without_limit():
    settings = FitSettings(patience=None, clip_norm=float("inf"))
    assert settings.patience is None


@pytest.mark.parametrize(("every", "rows", "interval"), [(7, 10**6, 7), (None, 100, 200)])
def test_evaluations_are_as_far_apart_as_asked_or_as_they_are_cheap(every, rows, interval):
    settings = FitSettings(evaluate_every=every)
    assert settings.evaluation_interval(rows) == interval
    # 4 forward passes of 256 rows cost about what a step of training does.
    assert FitSettings(batch_size=256).evaluation_interval(256_000) == 4_000


def test_no_torch_is_imported():
    code = "import sys, mbrl_bilevel.training.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
