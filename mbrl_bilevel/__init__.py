"""Model-based reinforcement learning with dynamics models trained by likelihood or by a learned reward."""

__version__ = "0.1.0"
