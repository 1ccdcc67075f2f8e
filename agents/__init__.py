"""What acts: model-predictive control, Dyna agents, and the behaviour policies that collect data."""
