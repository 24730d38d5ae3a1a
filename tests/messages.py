"""What messages of errors say."""

from __future__ import annotations

import re


def names(message: str, word: str) -> bool:
    """Is the word in the message, and not only as a part of another one?"""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", message) is not None
