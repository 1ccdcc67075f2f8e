"""Objectives: what one gradient step minimises.

An objective is called as `objective(network, x, y, generator)` with standardised inputs [E, B, d]
and targets [E, B, n] and returns a loss per member [E], averaged over the batch and summed over
dimensions, so that members never share a gradient.
"""
