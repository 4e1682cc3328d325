"""One file per published method, behind one interface and one registry."""

from importlib import import_module
from pkgutil import iter_modules

from headclip.methods.base import Method, Scores, TrainableMethod, create_method, list_methods, register

for _module in iter_modules(__path__):  # each file of a method registers it when it is imported
    import_module(f"{__name__}.{_module.name}")

__all__ = ["Method", "Scores", "TrainableMethod", "create_method", "list_methods", "register"]
