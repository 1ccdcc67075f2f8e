"""Model-based reinforcement learning: dynamics models trained by likelihood or a learned reward."""

__version__ = "0.1.0"
