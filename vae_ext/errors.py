"""The one exception that means: the user can mend this."""

from __future__ import annotations


class UserError(Exception):
    """An expected failure; its message is one sentence naming the thing and the remedy.

    The command line prints the message without a traceback and exits with status 1.
    """
