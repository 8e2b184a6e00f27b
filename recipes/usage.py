"""How a command ends early: a command line that can't be understood, or Ctrl-C."""

from tristate.core.errors import UserError


class UsageError(UserError):
    """A wrong verb, recipe name, key or value; the command exits with status 2."""


class Interrupted(UserError):
    """Ctrl-C; the command exits with status 130."""
