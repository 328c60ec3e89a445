"""Refusals: how a part says that the node cannot start with what it was given.

Whoever starts the node prints the line and ends; anything else that is raised is a mistake of ours and keeps its
traceback.
"""


class CannotStart(Exception):
    """The node cannot start. The message is one line for people, names the setting or file, and holds no secret."""
