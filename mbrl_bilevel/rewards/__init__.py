"""Rewards r_phi(y_hat, y, x) of generations, whose parameters phi are the outer variable.

Each is an nn.Module, `(y_hat [G, B, n], y [B, n], x [B, d]) -> [G, B]`; a member axis E may stand
before the batch axis of any argument, and leading axes broadcast. A reward whose expectation under
a Gaussian is known has `expected(gaussian, y, x) -> [B]` beside it.
"""
