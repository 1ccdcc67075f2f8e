"""Probabilistic models: ensembles in batched matrix products, and dynamics models around them."""
