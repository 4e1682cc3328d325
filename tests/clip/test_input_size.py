"""At which size an image enters the tower: in whole patches, at its own aspect where that is asked for."""

from __future__ import annotations

import pytest

from headclip.clip.config import ClipConfig
from headclip.clip.preprocess import input_size
from headclip.errors import BackboneError, InputError
from tiny_clip import make_config


def long(height: int, width: int, least_side: float = 208 / 272) -> tuple[int, int]:
    return input_size(height, width, image_size=272, patch=16, keep_aspect=True, least_side=least_side)


@pytest.mark.parametrize(("size", "expected"), [((300, 300), (272, 272)), ((600, 800), (240, 320)),
                                                ((900, 1600), (208, 368))])  # fmt: skip
def test_pictures_up_to_sixteen_by_nine_keep_the_area_of_the_square(size, expected):
    assert long(*size) == long(*size, least_side=0.0) == expected
    assert long(*size[::-1]) == expected[::-1]


@pytest.mark.parametrize(("size", "plain", "expected"), [
    ((500, 1260), (176, 432), (208, 528)),
    ((100, 300), (160, 464), (208, 624)),
    ((100, 400), (128, 544), (208, 832)),
    ((10, 1000), (128, 544), (208, 832)),
])  # fmt: skip
def test_longer_ones_get_as_many_patches_across_as_the_least_side_has(size, plain, expected):
    assert long(*size, least_side=0.0) == plain
    assert long(*size) == expected
    assert long(*size[::-1]) == expected[::-1]


def test_sizes_follow_the_aspect_without_a_jump():
    before = 272
    for width in range(300, 1500):
        rows, columns = long(300, width)
        assert rows >= 208
        assert 0 <= columns - before <= 16
        assert columns / rows == pytest.approx(min(4.0, width / 300), rel=0.07)
        before = columns


def test_squeezed_inputs_have_no_least_side():
    assert input_size(100, 400, image_size=56, patch=14, least_side=0.9) == (56, 56)


def test_too_small_a_size_is_refused():
    with pytest.raises(InputError, match="image size 8 is smaller than one patch"):
        input_size(10, 10, image_size=8, patch=14)


@pytest.mark.parametrize("share", [-0.1, 1.5, "half"])
def test_a_configuration_with_a_share_that_is_none_is_refused(share):
    values = make_config().to_dict() | {"least_side": share}
    with pytest.raises(BackboneError, match="least_side"):
        ClipConfig.from_dict(values)
