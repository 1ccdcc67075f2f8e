"""What acts: model-predictive control, Dyna agents, and the policies that collect data."""
