"""What acts: model-predictive control, agents that learn, and the policies that collect data."""
