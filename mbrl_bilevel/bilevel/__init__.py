"""The outer level: bilevel problems, linear solvers, hypergradients and the loops that use them."""
