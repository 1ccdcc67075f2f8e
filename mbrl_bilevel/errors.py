"""The one exception for what a user can mend."""


class InputError(ValueError):
    """Bad input: one sentence that names the thing, its value and the remedy.

    The command line prints the sentence without a traceback and exits with code 2.
    """
