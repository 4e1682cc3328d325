"""The rendered set: exact masks, seeds that decide everything, captions that tell the truth, pools that
resume."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from headclip.data.synthetic import (
    ABNORMAL_STATES,
    NORMAL_STATES,
    TEMPLATES,
    SyntheticDataset,
    caption_pair,
    open_pool,
    render,
    render_batch,
    write_pool,
)
from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.camera import DESATURATED_SHARE, draw_look, orient
from headclip.data.synthetic.defects import DEFECTS, FAVOURED, MIN_PIXELS, apply_defect
from headclip.data.synthetic.distractors import shaded_side, sliver, soiled_border, worn_strip
from headclip.data.synthetic.pool import CHUNK
from headclip.data.synthetic.renderer import build, item_seed
from headclip.data.synthetic.scenes import FAMILIES
from headclip.errors import InputError

SIZE = 96


def same(a, b):
    return torch.equal(a.image, b.image) and torch.equal(a.mask, b.mask) and a.caption == b.caption


def flat_scene(kind, value=0.5, channels=3, size=SIZE):
    foreground = torch.ones(size, size, dtype=torch.bool)
    if kind == "part":
        foreground[:, : size // 4] = False
    return Scene(torch.full((channels, size, size), value), foreground, "fabric", "thing", kind)


@pytest.mark.parametrize("size", [64, (96, 160), (200, 72)])
def test_a_sample_has_the_promised_form(size):
    height, width = (size, size) if isinstance(size, int) else size
    for sample in render_batch(range(40, 48), size):
        assert sample.image.shape == (3, height, width)
        assert sample.image.dtype == torch.uint8
        assert sample.mask.shape == (height, width)
        assert sample.mask.dtype == torch.bool
        assert bool(sample.mask.any()) == (sample.label == 1) == (sample.defect != "")
        assert sample.image.float().std() > 0.5


def test_a_sample_depends_on_its_seed_alone():
    alone = [render(seed, SIZE) for seed in range(12)]
    torch.manual_seed(5)
    np.random.seed(5)
    backwards = render_batch(range(11, -1, -1), SIZE)[::-1]
    assert all(same(a, b) for a, b in zip(alone, backwards, strict=True))
    assert len({sample.image.numpy().tobytes() for sample in alone}) == 12


def test_a_sample_does_not_depend_on_the_number_of_threads():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = [render(seed, 224) for seed in range(12)]
        torch.set_num_threads(2)
        assert all(same(sample, render(sample.seed, 224)) for sample in alone)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_with_and_without_defect_differ_exactly_in_the_mask():
    for seed in range(120):
        stages = build(seed, (SIZE, SIZE), defect_rate=1.0)
        changed = (stages.drawn != stages.clean).any(0)
        casts = stages.scene.casts and stages.defect in stages.scene.variants
        assert casts or not (changed & ~stages.mask).any(), (seed, stages.defect)
        assert int((changed & stages.mask).sum()) >= MIN_PIXELS
        assert int(changed.sum()) > 0.3 * int(stages.mask.sum()), (seed, stages.defect)
        normal = build(seed, (SIZE, SIZE), defect_rate=0.0)
        assert torch.equal(normal.clean, stages.clean)
        assert not normal.mask.any()
        assert normal.defect == ""


def test_the_camera_treats_both_labels_alike():
    """Far from the defect the finished pictures agree, too: light, noise and orientation know no label."""
    compared = 0
    for seed in range(40):
        if build(seed, (SIZE, SIZE)).scene.casts:  # what lies behind a stone is darker, and that is no camera's doing
            continue
        harmed, intact = (render(seed, SIZE, defect_rate=rate) for rate in (1.0, 0.0))
        grown = torch.nn.functional.max_pool2d(harmed.mask.float()[None, None], 25, 1, 12)[0, 0] > 0
        difference = (harmed.image.int() - intact.image.int()).abs().amax(0)
        assert difference[~grown].sum() == 0
        compared += int((~grown).sum())
    assert compared > 40 * SIZE * SIZE // 3


@pytest.mark.parametrize("name", sorted(DEFECTS))
@pytest.mark.parametrize("channels", [1, 3])
def test_every_defect_draws_and_keeps_to_its_mask(name, channels):
    kind = (DEFECTS[name].kinds or ("surface",))[0]
    texture = 0.03 * torch.randn(channels, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
    scene = flat_scene("part" if "part" in DEFECTS[name].kinds else kind, channels=channels)
    scene.image = (scene.image + texture).clamp(0, 1)
    before, drawn = scene.image.clone(), 0
    for seed in range(12):
        image, mask, used = apply_defect(scene, Rng(seed), name)
        drawn += used == name
        assert torch.equal(scene.image, before)
        assert torch.equal(image[:, ~mask], before[:, ~mask])
        assert mask.any()
        assert float(image.min()) >= 0
        assert float(image.max()) <= 1
    assert drawn >= 6


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_scenes_get_a_visible_defect(value):
    for seed in range(30):
        scene = flat_scene("surface", value)
        image, mask, _ = apply_defect(scene, Rng(seed))
        assert int(((image - scene.image).abs().amax(0) > 0.02).sum()) >= MIN_PIXELS
        assert int(mask.sum()) >= MIN_PIXELS


def test_defects_lie_on_the_foreground():
    inside = total = 0
    for seed in range(60):
        scene = flat_scene("part")
        _, mask, _ = apply_defect(scene, Rng(seed), "stain")
        inside, total = inside + int((mask & scene.foreground).sum()), total + int(mask.sum())
    assert inside == total


def test_contrasts_and_sizes_reach_from_faint_to_strong():
    amounts, sizes = [], []
    for seed in range(150):
        image, mask, _ = apply_defect(flat_scene("surface", 0.6, size=128), Rng(seed))
        amounts.append(float((image - 0.6).abs().amax(0)[mask].quantile(0.9)))
        sizes.append(int(mask.sum()))
    assert np.quantile(amounts, 0.15) < 0.08
    assert np.quantile(amounts, 0.9) > 0.3
    assert min(sizes) < 30
    assert max(sizes) > 1200


def test_a_variant_of_the_scene_is_used_half_of_the_time_and_masked():
    def missing():
        image = torch.full((3, SIZE, SIZE), 0.5)
        image[:, 20:40, 20:40] = 0.1
        mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
        mask[18:42, 18:42] = True
        return image, mask

    names = []
    for seed in range(80):
        scene = flat_scene("part")
        scene.variants = {"missing part": missing}
        _, mask, name = apply_defect(scene, Rng(seed))
        names.append(name)
        if name == "missing part":
            assert mask[20:40, 20:40].all()
            assert not mask[:18].any()
    assert 20 < names.count("missing part") < 60


def spotted(step, side):
    """A variant that changes every `step`-th column of a square of `side` pixels."""
    image, mask = torch.full((3, SIZE, SIZE), 0.5), torch.zeros(SIZE, SIZE, dtype=torch.bool)
    mask[10 : 10 + side, 10 : 10 + side : step] = True
    image[:, mask] = 0.1
    return lambda: (image, mask)


def variant_of(change):
    """What is drawn of a scene's only variant: (image, mask, name) of the first seed that takes it."""
    for seed in range(30):
        scene = flat_scene("part")
        scene.variants = {"shifted print": change}
        drawn = apply_defect(scene, Rng(seed), None)
        if drawn[2] == "shifted print":
            return scene, drawn
    return None


def test_near_spots_of_a_variant_are_one_region_and_far_ones_are_not():
    scene, (image, mask, _) = variant_of(spotted(3, 24))
    assert mask[10:34, 10:32].all()
    assert not mask[:10].any()
    assert not mask[34:].any()
    assert torch.equal(image[:, ~mask], scene.image[:, ~mask])
    _, (_, apart, _) = variant_of(spotted(12, 24))
    assert apart[10:34].any(dim=0).sum() == 2


def test_a_variant_larger_than_half_of_the_picture_is_left_out():
    side = int(SIZE * 0.75)
    assert variant_of(spotted(1, int(SIZE * 0.65))) is not None
    assert side * side > SIZE * SIZE / 2
    assert variant_of(spotted(1, side)) is None


@pytest.mark.parametrize("draw", [sliver, shaded_side])
def test_what_lies_beside_the_part_begins_at_one_side_and_leaves_the_middle(draw):
    sides = set()
    for seed in range(60):
        factor, offset = draw(Rng(seed), SIZE, 2 * SIZE)
        drawn = torch.full((SIZE, 2 * SIZE), 0.5) * factor + offset
        touched = (drawn - 0.5).abs() > 1e-3
        assert not touched[SIZE // 2, SIZE]
        edges = {"top": touched[0], "bottom": touched[-1], "left": touched[:, 0], "right": touched[:, -1]}
        sides.add(max(edges, key=lambda side: int(edges[side].sum())))
    assert sides == {"top", "bottom", "left", "right"}


def test_what_soils_the_border_touches_it_and_leaves_the_middle():
    for seed in range(60):
        factor, offset = soiled_border(Rng(seed), SIZE, 2 * SIZE)
        touched = (torch.full((SIZE, 2 * SIZE), 0.5) * factor + offset - 0.5).abs() > 1e-3
        assert not touched[SIZE // 2, SIZE]
        assert any(bool(edge.any()) for edge in (touched[0], touched[-1], touched[:, 0], touched[:, -1]))
        assert 0 < float(touched.float().mean()) < 0.2


def test_a_defect_may_come_many_times_but_covers_little_more_than_a_third():
    masks = [apply_defect(flat_scene("surface"), Rng(seed), "hole")[1] for seed in range(120)]
    counts = [ndimage.label(mask.numpy())[1] for mask in masks]
    assert max(counts) > 4
    assert sorted(counts)[len(counts) // 2] <= 2
    assert max(float(mask.float().mean()) for mask in masks) < 0.5


def test_a_worn_strip_is_long_narrow_and_soft():
    size, steepest = 192, []
    for seed in range(60):
        factor, _ = worn_strip(Rng(seed), size, size)
        change = (factor - 1).abs()
        peak = float(change.amax())
        if peak < 0.05:  # it lies beside the picture
            continue
        step = max(float(change.diff(dim=0).abs().amax()), float(change.diff(dim=1).abs().amax()))
        steepest.append(step / peak)
        assert float((change > 0.5 * peak).float().mean()) < 0.75
    assert len(steepest) > 30
    assert sorted(steepest)[len(steepest) // 2] < 0.25  # a sharp edge is a step of 1
    assert max(steepest) < 0.8


def test_what_matters_on_a_family_is_drawn_more_often_there():
    assert set(FAVOURED) <= set(FAMILIES)
    assert {name for factors in FAVOURED.values() for name in factors} <= set(DEFECTS)

    def cracks(family):
        scene = replace(flat_scene("surface"), family=family)
        return sum(apply_defect(scene, Rng(seed))[2] == "crack" for seed in range(200))

    assert cracks("cast_face") > 2 * cracks("brushed_metal") > 0


def test_a_lesion_may_fill_much_of_the_picture_and_is_then_seen():
    shares, changes = [], []
    for seed in range(80):
        scene = replace(flat_scene("tissue"), family="skin")
        image, mask, _ = apply_defect(scene, Rng(seed), "mole")
        shares.append(float(mask.float().mean()))
        changes.append(float((image - scene.image).abs().amax(0)[mask].mean()))
    large = [change for share, change in zip(shares, changes, strict=True) if share > 0.2]
    assert len(large) > 10
    assert min(shares) < 0.05
    assert min(large) > 0.03


def test_most_pictures_are_grey_and_turns_keep_image_and_mask_together():
    looks = [draw_look(Rng(seed)) for seed in range(400)]
    assert DESATURATED_SHARE > 0
    assert {(k.turn, k.flip_rows, k.flip_columns) for k in looks} == {
        (a, b, c) for a in (False, True) for b in (False, True) for c in (False, True)
    }
    field = torch.arange(6.0).view(2, 3)
    for look in looks[:20]:
        assert torch.equal(orient(field[None], look)[0], orient(field, look))
    spread = torch.stack(
        [(s.image.float().amax(0) - s.image.float().amin(0)).mean() for s in render_batch(range(150), 64)]
    )
    assert 0.5 < float((spread < 12).float().mean()) < 0.85


NEGATED = re.compile(r"without (flaw|defect|damage)")
WRONG = re.compile(
    r"\b(damaged?|broken|defects?|defective|imperfect|anomalous|anomaly|abnormal|faulty|flaw(ed)?|crack|scratch|hole"
    r"|stain|dent|missing|bent|lesion)\b"
)


def test_captions_agree_with_the_label():
    objects, named = 0, 0
    samples = render_batch(range(1000, 1300), 64)
    for sample in samples:
        text = sample.caption.replace("for anomaly detection", "").replace(sample.noun, "NOUN")
        objects += bool(re.search(r"\bobject\b", text))
        if sample.label:
            named += not any(word in text for word in ("damage", "defect", "flaw"))
            assert not NEGATED.search(text), sample.caption
            assert not re.search(r"\b(flawless|unblemished|intact|healthy)\b", text), sample.caption
        else:
            assert not WRONG.search(NEGATED.sub("", text)), sample.caption
    assert len({sample.caption for sample in samples}) > 200
    assert 0.1 < objects / len(samples) < 0.3
    assert named > 30


def test_a_caption_pair_differs_in_its_state_only():
    for seed in range(100):
        normal, abnormal = caption_pair("metal nut", Rng(seed))
        thing = "object" if "object" in normal else "metal nut"
        assert thing in abnormal
        assert not WRONG.search(NEGATED.sub("", normal.replace("for anomaly detection", "")))
        assert normal != abnormal
    assert all("{}" in state for state in NORMAL_STATES + ABNORMAL_STATES)
    assert all("{a}" in template or "{x}" in template for template in TEMPLATES)


def test_the_dataset_renders_its_items_by_seed():
    data = SyntheticDataset(seed=3, count=5, size=64)
    assert len(data) == 5
    assert same(data[4], render(item_seed(3, 4), 64))
    assert same(data[-1], data[4])
    with pytest.raises(IndexError):
        data[5]
    prints = {
        SyntheticDataset(seed, count, size, rate).fingerprint()
        for seed, count, size, rate in [
            (3, 5, 64, 0.5),
            (4, 5, 64, 0.5),
            (3, 6, 64, 0.5),
            (3, 5, 96, 0.5),
            (3, 5, 64, 0.4),
        ]
    }
    assert len(prints) == 5
    assert data.fingerprint() == SyntheticDataset(3, 5, (64, 64), 0.5).fingerprint()


def test_bad_settings_are_refused():
    with pytest.raises(InputError):
        render(-1, 64)
    with pytest.raises(InputError):
        render(1, 8)
    with pytest.raises(InputError):
        render(1, 64, defect_rate=1.5)
    with pytest.raises(InputError):
        SyntheticDataset(1, 0, 64)


class StopError(Exception):
    pass


def stop_after(done_at):
    def progress(done, count):
        if done >= done_at:
            raise StopError

    return progress


def test_a_resumed_pool_equals_one_in_one_go(tmp_path):
    settings = {"seed": 9, "count": 2 * CHUNK + 5, "size": 64}
    whole = write_pool(tmp_path / "whole", **settings)
    with pytest.raises(StopError):
        write_pool(tmp_path / "parts", **settings, progress=stop_after(CHUNK))
    part = open_pool(tmp_path / "parts")
    assert len(part) == CHUNK
    assert not part.complete
    with (tmp_path / "parts" / "meta.jsonl").open("a") as file:
        file.write('{"half a li')  # what a kill in the middle of a line leaves behind
    calls = []
    resumed = write_pool(tmp_path / "parts", **settings, progress=lambda done, count: calls.append((done, count)))
    assert calls[0] == (CHUNK, settings["count"])
    assert resumed.complete
    assert np.array_equal(resumed.images, whole.images)
    assert np.array_equal(resumed.masks, whole.masks)
    assert resumed.meta == whole.meta
    assert same(resumed[CHUNK + 3], render(item_seed(9, CHUNK + 3), 64))
    lines = (tmp_path / "parts" / "meta.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == whole.meta


def test_worker_processes_write_the_same_pool(tmp_path):
    settings = {"seed": 2, "count": CHUNK + 3, "size": 64}
    one = write_pool(tmp_path / "one", **settings)
    two = write_pool(tmp_path / "two", **settings, workers=2)
    assert np.array_equal(one.images, two.images)
    assert np.array_equal(one.masks, two.masks)
    assert one.meta == two.meta


def test_a_pool_of_other_settings_is_not_continued(tmp_path):
    write_pool(tmp_path, seed=1, count=2, size=64)
    with pytest.raises(InputError, match="seed"):
        write_pool(tmp_path, seed=2, count=2, size=64)
    with pytest.raises(InputError, match="no pool"):
        open_pool(tmp_path / "none")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_renderer_runs_on_a_gpu():
    for seed in range(6):
        sample = render(seed, SIZE, device="cuda", defect_rate=1.0)
        assert sample.image.device.type == sample.mask.device.type == "cuda"
        assert sample.mask.any()
        assert same(sample, render(seed, SIZE, device="cuda", defect_rate=1.0))
