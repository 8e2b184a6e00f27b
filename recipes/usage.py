"""The error of a command line that can't be understood."""

from tristate.core.errors import UserError


class UsageError(UserError):
    """A wrong verb, recipe name, key or value; the command exits with status 2."""
