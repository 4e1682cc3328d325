"""Detectors that use one loaded backbone: its tower has one device and one precision for all of them."""

from __future__ import annotations

from typing import Literal, Protocol
from weakref import WeakKeyDictionary, WeakSet

import torch

from headclip.clip.backbone import Backbone
from headclip.errors import InputError
from headclip.inference.device import Precision


class User(Protocol):
    """What is needed of a `Detector`."""

    device: torch.device
    precision: Precision


_USERS: WeakKeyDictionary[Backbone, WeakSet[User]] = WeakKeyDictionary()  # the detectors that are there now


def remember_user(backbone: Backbone, detector: User) -> None:
    """From now on the detector uses the backbone, as long as it lives."""
    _USERS.setdefault(backbone, WeakSet()).add(detector)


def shared_precision(
    backbone: Backbone, device: torch.device, precision: Precision | Literal["auto"]
) -> Precision | Literal["auto"]:
    """The precision to ask for where other detectors run on this backbone, whose tower they share: theirs for "auto".

    Raises:
        InputError: another device or precision than theirs, which would change their scores.
    """
    for other in _USERS.get(backbone, ()):
        if other.device != device:
            raise InputError(
                f"another detector uses this loaded backbone on {other.device}; load it again to use it on {device}"
            )
        if precision not in ("auto", other.precision):
            raise InputError(
                f"another detector uses this loaded backbone in {other.precision}; load it again to use it in "
                f"{precision}"
            )
        return other.precision
    return precision
