"""Parameters are counted by the shapes in the files."""

import torch

from mbrl_bilevel.scripts.stored_parameters import model_parameters, policy_parameters
from mbrl_bilevel.tensor_files import save_tensors


def test_networks_count_and_what_only_scales_does_not(tmp_path):
    policy = {"w1": torch.zeros(3, 4), "b1": torch.zeros(4), "action_low": torch.zeros(2)}
    save_tensors(tmp_path / "policy.safetensors", policy, {})
    weights = {"network.w": torch.zeros(5, 2, 3), "input_standardizer.mean": torch.zeros(7)}
    recalibration = {"network.recalibration": torch.zeros(3)}
    save_tensors(tmp_path / "model.safetensors", weights | recalibration, {})
    assert (policy_parameters(tmp_path), model_parameters(tmp_path)) == (16, 30)


def test_files_that_cannot_be_read_have_none(tmp_path):
    assert policy_parameters(tmp_path) is None
    (tmp_path / "policy.safetensors").write_text("no tensors")
    assert policy_parameters(tmp_path) is None
