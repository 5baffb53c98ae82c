"""Texts from outside, made fit for people's eyes: nothing in them acts, or hides what it is."""

import unicodedata


def visible(text: str, keep: str = "") -> str:
    r"""Write every character that shows nothing, or moves others, as an escape.

    Control characters could be obeyed by a terminal, and marks of direction could make a text look
    like another one. `keep` names those that are harmless where the text goes.

    >>> visible("a\x1b[2J\u202eb")
    'a\\x1b[2J\\u202eb'
    """
    if text.isprintable():
        return text
    return "".join(
        letter
        if letter.isprintable() or letter in keep or unicodedata.category(letter) == "Zs"
        else letter.encode("unicode_escape").decode()
        for letter in text
    )
