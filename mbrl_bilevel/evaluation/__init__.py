"""Evaluation of models and agents: one-step and k-step error, calibration, returns, figures."""
