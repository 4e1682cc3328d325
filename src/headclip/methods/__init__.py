"""One file per published method, behind one interface and one registry."""

from headclip.methods import headclip as _headclip  # noqa: F401 - registers itself
from headclip.methods.base import Method, Scores, create_method, list_methods, register

__all__ = ["Method", "Scores", "create_method", "list_methods", "register"]
