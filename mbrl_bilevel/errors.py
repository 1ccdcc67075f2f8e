"""Exceptions: what a user can mend, and training that diverged."""


class InputError(ValueError):
    """Bad input: one sentence that names the thing, its value and the remedy.

    The command line prints the sentence without a traceback and exits with code 2.
    """


class TrainingDiverged(RuntimeError):
    """Training cannot go on: numbers that are not finite, or an error without bound.

    The command line prints the sentence without a traceback and exits with code 1.
    """
