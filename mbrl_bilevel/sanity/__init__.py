"""Toy problems in which every answer is known: they check the estimators and objectives."""
