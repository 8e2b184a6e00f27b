"""Errors meant for the person at the command line."""


class UserError(Exception):
    """What the user can mend, told in one sentence: what came, what was wanted, what to do.

    The command line prints the sentence without a traceback and exits with status 1.
    """
