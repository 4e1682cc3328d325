"""WinCLIP's windows, harmonic means and reference memories against plain loops; what must hold whatever the weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from headclip.errors import BackboneError, InputError
from headclip.methods import references, windows
from headclip.methods.base import create_method, list_methods
from headclip.methods.checkpoint import load_checkpoint, save_checkpoint
from headclip.methods.references import ReferenceMemory, nearest_distance
from headclip.methods.winclip import WinClip, WinClipConfig
from headclip.methods.windows import harmonic_mean, harmonic_patches, window_indices, window_vectors
from tiny_clip import make_backbone, make_config

close = torch.testing.assert_close
SIZE = (42, 70)  # 3 x 5 patches: the grid need not be square
GRID = (3, 5)


@pytest.fixture(scope="module")
def backbone():
    return make_backbone(make_config(activation="gelu"))


@pytest.fixture
def method(backbone):
    return WinClip(backbone)


def noise(count, size=SIZE, seed=5):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def judge(method, pixels, text=None):
    with torch.no_grad():
        return method.score_pixels(pixels, text)


def tokens_of(method, pixels):
    with torch.no_grad():
        return method.tokens(pixels)


def covered(grid, scale):
    """Windows as sets of (row, column), in order, by plain loops."""
    return [
        [(row + i, column + j) for i in range(scale) for j in range(scale)]
        for row in range(grid[0] - scale + 1)
        for column in range(grid[1] - scale + 1)
    ]


# windows

GRIDS = st.tuples(st.integers(3, 7), st.integers(3, 7))


@settings(max_examples=30, deadline=None)
@given(GRIDS, st.integers(1, 3))
def test_window_indices_by_loops(grid, scale):
    expected = [[row * grid[1] + column for row, column in window] for window in covered(grid, scale)]
    assert window_indices(grid, scale).tolist() == expected


@settings(max_examples=30, deadline=None)
@given(GRIDS, st.integers(1, 3), st.integers(0, 1000))
def test_harmonic_patches_by_loops(grid, scale, seed):
    cover = covered(grid, scale)
    scores = torch.rand(2, len(cover), generator=torch.Generator().manual_seed(seed)) + 1e-3
    ours = harmonic_patches(scores, grid, scale)
    for image in range(2):
        for row in range(grid[0]):
            for column in range(grid[1]):
                over = [scores[image, i].item() for i, window in enumerate(cover) if (row, column) in window]
                assert ours[image, row, column].item() == pytest.approx(len(over) / sum(1 / s for s in over), rel=1e-4)


def test_one_window_of_zero_decides():
    scores = torch.full((1, 4), 0.5)
    scores[0, 0] = 0.0  # covers all but the last row and column of 3 x 3 patches
    ours = harmonic_patches(scores, (3, 3), 2)[0]
    assert (ours[:2, :2] == 0).all()
    close(ours[2], torch.full((3,), 0.5))
    close(harmonic_mean([torch.tensor([0.0, 0.5]), torch.tensor([1.0, 0.25])]), torch.tensor([0.0, 1 / 3]))


@pytest.mark.parametrize("limit", [windows.MAX_TOKENS, 23], ids=["at once", "in pieces"])
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_window_vectors_one_by_one(backbone, monkeypatch, scale, limit):
    monkeypatch.setattr(windows, "MAX_TOKENS", limit)
    vision, pixels = backbone.vision, noise(2)
    with torch.no_grad():
        ours = window_vectors(vision, vision.embed(pixels)[0], GRID, scale)
        patches = vision.patch_embedding(pixels).flatten(2).transpose(1, 2) + vision.positions(GRID)[1:]
        cls = vision.class_embedding + vision.position_embedding[0]
        for image in range(2):
            for i, indices in enumerate(window_indices(GRID, scale)):
                x = vision.ln_pre(torch.cat([cls[None], patches[image, indices]]))[None]
                for block in vision.blocks:
                    x = block(x)
                close(ours[image, i], vision.project(x[0, 0]), atol=1e-5, rtol=1e-5)


def test_a_window_does_not_see_its_surroundings(backbone):
    method = WinClip(backbone)
    pixels, changed = noise(1), noise(1)
    changed[:, :, 28:] += 1.0  # the last row of patches
    one, other = tokens_of(method, pixels).windows[2][0], tokens_of(method, changed).windows[2][0]
    close(one[:4], other[:4])  # windows of the first two rows
    assert ((one[4:] - other[4:]).abs().amax(dim=1) > 1e-4).all()


# zero-shot


@pytest.mark.parametrize("shots", [0, 2])
def test_one_image_alone_equals_the_same_in_a_batch(method, shots):
    if shots:
        method.set_references(noise(shots, seed=9))
    pixels = noise(3)
    together = judge(method, pixels)
    for index in range(3):
        alone = judge(method, pixels[index : index + 1])
        close(alone.anomaly_map[0], together.anomaly_map[index], atol=1e-5, rtol=0)
        close(alone.score[0], together.score[index], atol=1e-5, rtol=0)


def test_the_map_by_its_definition(method):
    pixels, text = noise(2), method.text_vectors()[0]
    tokens = tokens_of(method, pixels)
    scores = [method.image_scores(tokens, text)[:, None, None].expand(2, *GRID)]
    for scale, values in method.window_scores(tokens, text).items():
        scores.append(harmonic_patches(values, GRID, scale))
    expected = 3 / (1 / scores[0] + 1 / scores[1] + 1 / scores[2])
    expected = F.interpolate(expected[:, None], size=SIZE, mode="bilinear", align_corners=False)[:, 0]
    found = method.score(tokens, text, SIZE)
    close(found.anomaly_map, expected)
    close(found.score, method.image_scores(tokens, text))
    larger = method.score(tokens, text, SIZE, output=(90, 31))
    assert larger.anomaly_map.shape == (2, 90, 31)
    close(larger.score, found.score)


@pytest.mark.parametrize("size", [(42, 42), (42, 140), (98, 56)])
def test_any_grid(method, size):
    method.set_references(noise(1, seed=1))  # of yet another size
    before = {name: value.clone() for name, value in method.backbone.named_parameters()}
    scores = judge(method, noise(1, size))
    assert scores.anomaly_map.shape == (1, *size)
    for values in (scores.anomaly_map, scores.score, scores.local_score):
        assert ((values > 0) & (values < 1)).all()
    assert all(torch.equal(before[name], value) for name, value in method.backbone.named_parameters())


def test_a_grid_smaller_than_a_window(method):
    with pytest.raises(InputError, match=r"3 x 3 patches do not fit into 2 x 5 patches of 14 px.* at least 42 px"):
        method.tokens(noise(1, (28, 70)))
    small = WinClip(method.backbone, WinClipConfig(scales=(2,)))
    assert judge(small, noise(1, (28, 70))).anomaly_map.shape == (1, 28, 70)


def test_the_category_matters(method):
    vectors = method.text_vectors(["bottle", "metal_nut", "bottle"])
    assert vectors.shape == (3, 2, 48)
    close(vectors.norm(dim=-1), torch.ones(3, 2))
    assert torch.equal(vectors[0], vectors[2])
    assert (vectors[0] - vectors[1]).abs().max() > 1e-3
    assert torch.equal(vectors[1], method.text_vectors(["metal nut"])[0])
    assert torch.equal(method.text_vectors(), method.text_vectors(["object"]))
    named = WinClip(method.backbone, WinClipConfig(category="bottle"))
    assert torch.equal(named.text_vectors()[0], vectors[0])
    assert (judge(method, noise(1)).anomaly_map - judge(named, noise(1)).anomaly_map).abs().max() > 1e-5


def test_each_image_may_have_its_own_category(method):
    vectors, pixels = method.text_vectors(["bottle", "leather"]), noise(2)
    together = judge(method, pixels, vectors)
    for index in range(2):
        alone = judge(method, pixels[index : index + 1], vectors[index])
        close(alone.anomaly_map[0], together.anomaly_map[index], atol=1e-5, rtol=0)
        close(alone.score[0], together.score[index], atol=1e-5, rtol=0)


def test_a_category_is_encoded_once(method, monkeypatch):
    first = method.text_vectors(["bottle"])
    monkeypatch.setattr(method, "_describe", lambda name: pytest.fail(f"{name} was encoded again"))
    assert torch.equal(first, method.text_vectors(["bottle"]))


@pytest.mark.parametrize("categories", [[], [""], ["a{b"]])
def test_wrong_categories(method, categories):
    with pytest.raises(InputError, match="category"):
        method.text_vectors(categories)


def test_joint_score(backbone):
    pixels = noise(2)
    plain, joint, local = (judge(WinClip(backbone, WinClipConfig(alpha=a)), pixels) for a in (0.0, 0.25, 1.0))
    assert torch.equal(plain.score, plain.global_score)
    assert torch.equal(local.score, local.local_score)
    close(joint.score, 0.75 * plain.score + 0.25 * local.score)
    close(plain.local_score, plain.anomaly_map.flatten(1).topk(29).values.mean(dim=1))  # 1 % of 42 * 70
    assert torch.equal(plain.anomaly_map, joint.anomaly_map)


@pytest.mark.parametrize(
    "change",
    [{"scales": (2,)}, {"templates": "plain"}, {"temperature": 0.5}, {"position_interpolation": "bilinear"}],
    ids=str,
)
def test_every_setting_changes_the_map(backbone, change):
    one, other = (judge(WinClip(backbone, c), noise(1)) for c in (WinClipConfig(), WinClipConfig(**change)))
    assert (one.anomaly_map - other.anomaly_map).abs().max() > 1e-6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scales": []}, "sides in patches"),
        ({"scales": [0, 2]}, "sides in patches"),
        ({"scales": [2, 2]}, "differ"),
        ({"templates": "none"}, "stopped, plain"),
        ({"temperature": 0.0}, "temperature"),
        ({"alpha": 2.0}, "alpha"),
        ({"top_share": 0.0}, "top_share"),
        ({"windows": 2}, "WinClipConfig has"),
    ],
)
def test_wrong_settings_say_what_is_right(backbone, change, words):
    with pytest.raises(InputError, match=words):
        create_method("winclip", backbone, change)


def test_a_backbone_without_text_is_refused():
    with pytest.raises(BackboneError, match="no text tower"):
        WinClip(make_backbone(make_config(text=False)))


def test_tokens_without_windows_are_refused(method):
    plain = method.backbone.vision(noise(1), method.request)
    with pytest.raises(InputError, match="its own"):
        method.score(plain, method.text_vectors()[0], SIZE)


def test_a_pass_that_others_share(method):
    """Windows can be added to a pass that taps more layers than WinCLIP asks for."""
    method.set_references(noise(1, seed=9))
    pixels, text = noise(2), method.text_vectors()[0]
    own = method.score(tokens_of(method, pixels), text, SIZE)
    with torch.no_grad():
        whole = method.backbone.vision(pixels, replace(method.request, taps=(1, 3)))
        shared = method.score(method.with_windows(whole, pixels), text, SIZE)
    close(own.anomaly_map, shared.anomaly_map)
    close(own.score, shared.score)


def test_registered_with_nothing_to_train(method, tmp_path):
    assert "winclip" in list_methods()
    assert method.trainable() == {}
    assert method.image_size == 240
    method.set_references(noise(1))
    save_checkpoint(tmp_path / "w.safetensors", method)
    loaded, _ = load_checkpoint(tmp_path / "w.safetensors", method.backbone)
    assert loaded.config == method.config
    assert loaded.references == 0


# few-shot


@pytest.mark.parametrize("limit", [references.MAX_PRODUCTS, 50], ids=["at once", "in pieces"])
def test_nearest_distance_by_loops(monkeypatch, limit):
    monkeypatch.setattr(references, "MAX_PRODUCTS", limit)
    generator = torch.Generator().manual_seed(0)
    features, bank = (torch.randn(*shape, generator=generator) for shape in [(2, 5, 8), (7, 8)])
    ours = nearest_distance(features, F.normalize(bank, dim=-1))
    for i in range(2):
        for j in range(5):
            cosines = F.cosine_similarity(features[i, j][None], bank)
            assert ours[i, j].item() == pytest.approx(min((1 - c) / 2 for c in cosines.tolist()), abs=1e-6)


def test_a_vector_of_the_bank_is_at_distance_zero_whatever_its_length():
    bank = torch.randn(20, 33, generator=torch.Generator().manual_seed(0))
    memory = ReferenceMemory({"x": list(bank.view(4, 5, 33))})
    distances = memory.distance("x", 3 * bank)
    assert (distances >= 0).all()
    assert distances.max() < 1e-6
    alone = ReferenceMemory({"x": [bank[:1]]})
    close(alone.distance("x", -2 * bank[:1]), torch.ones(1))
    assert memory.state_dict() == {}


def test_few_shot_by_its_definition(method):
    pixels, normal = noise(2), noise(2, seed=9)
    zero = judge(method, pixels)
    method.set_references(normal)
    tokens, known = tokens_of(method, pixels), tokens_of(method, normal)
    maps = []
    for ours, theirs, scale in [
        (*(method.backbone.vision.ln_post(t.local[3][:, 1:]) for t in (tokens, known)), 1),
        *((tokens.windows[s], known.windows[s], s) for s in (2, 3)),
    ]:
        cosines = F.cosine_similarity(ours[:, :, None, None], theirs[None, None], dim=-1)  # (B, n, K, n)
        maps.append(harmonic_patches(((1 - cosines) / 2).flatten(2).amin(dim=2), GRID, scale))
    expected = torch.stack(maps).mean(dim=0)
    few = method.few_shot_patches(tokens)
    close(few, expected, atol=1e-6, rtol=1e-4)
    found = judge(method, pixels)
    up = F.interpolate(expected[:, None], size=SIZE, mode="bilinear", align_corners=False)[:, 0]
    close(found.anomaly_map, (zero.anomaly_map + up) / 2, atol=1e-6, rtol=1e-4)
    close(found.score, (zero.score + expected.flatten(1).amax(dim=1)) / 2, atol=1e-6, rtol=1e-4)


def test_an_image_that_is_its_own_reference(method):
    pixels = noise(1)
    zero = judge(method, pixels)
    method.set_references(pixels)
    few = judge(method, pixels)
    close(few.score, zero.score / 2, atol=1e-5, rtol=0)
    close(few.anomaly_map, zero.anomaly_map / 2, atol=1e-5, rtol=0)


def test_more_references_never_raise_a_distance(method):
    normal, tokens = noise(3, seed=9), tokens_of(method, noise(2))
    found = []
    for count in (1, 2, 3):
        method.set_references(normal[:count], batch_size=2)
        assert method.references == count
        found.append(method.few_shot_patches(tokens))
    assert (found[1] <= found[0] + 1e-6).all()
    assert (found[2] <= found[1] + 1e-6).all()
    assert (found[0] - found[2]).max() > 1e-4
    method.set_references(normal.flip(0))
    close(method.few_shot_patches(tokens), found[2], atol=1e-6, rtol=1e-4)


def test_references_of_several_sizes_and_forgetting(method):
    pixels = noise(1)
    zero = judge(method, pixels)
    method.set_references([noise(2, (42, 42)), noise(1, (56, 70))])
    assert method.references == 3
    assert len(method.memory.bank("patches")) == 2 * 9 + 20
    assert (judge(method, pixels).score - zero.score).abs().max() > 1e-5
    method.set_references(None)
    assert method.references == 0
    assert torch.equal(judge(method, pixels).anomaly_map, zero.anomaly_map)
    with pytest.raises(InputError, match="set_references"):
        method.few_shot_patches(tokens_of(method, pixels))


def test_references_of_one_size_share_passes_and_keep_their_order():
    sizes = [(42, 42), (42, 42), (42, 42), (42, 56), (42, 42)]
    images = [noise(1, size, seed=i) for i, size in enumerate(sizes)]
    batches = references.reference_batches(images, batch_size=2)
    assert [tuple(batch.shape) for batch in batches] == [(2, 3, 42, 42), (1, 3, 42, 42), (1, 3, 42, 56), (1, 3, 42, 42)]
    for image, there in zip(images, [one for batch in batches for one in batch], strict=True):
        assert torch.equal(image[0], there)


def test_one_reference_left_out_is_as_if_never_given(method):
    pixels, known = noise(1), [noise(1, size, seed=i) for i, size in enumerate([(42, 42), (42, 56), (42, 42)])]
    method.set_references([known[0], known[2]])
    never = judge(method, pixels)
    method.set_references(known)
    with method.without_references([1]):
        assert method.references == 2
        left = judge(method, pixels)
    assert method.references == 3
    close(left.anomaly_map, never.anomaly_map)
    close(left.score, never.score)
    method.set_references(known[:1])
    with pytest.raises(InputError, match="none of 1"), method.without_references([0]):
        pass


def test_references_may_skip_the_last_norm(backbone):
    one, other = (WinClip(backbone, replace(WinClipConfig(), patch_norm=norm)) for norm in (True, False))
    for method in (one, other):
        method.set_references(noise(1, seed=9))
    first, second = (m.few_shot_patches(tokens_of(m, noise(1))) for m in (one, other))
    assert (first - second).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        ([], "no reference images"),
        (torch.zeros(0, 3, 42, 42), "no reference images"),
        (torch.zeros(3, 42, 42), r"\(K, 3, H, W\), not \(3, 42, 42\)"),
        (torch.zeros(1, 1, 42, 42), r"not \(1, 1, 42, 42\)"),
        (torch.zeros(1, 3, 28, 42), "do not fit"),
        (torch.zeros(1, 3, 50, 50), "multiples of 14"),
    ],
)
def test_wrong_references_keep_what_was_remembered(method, pixels, words):
    method.set_references(noise(1))
    with pytest.raises(InputError, match=words):
        method.set_references(pixels)
    assert method.references == 1


def test_half_precision(backbone):
    exact = WinClip(backbone)
    rough = WinClip(make_backbone(make_config(activation="gelu")))
    text = exact.text_vectors()[0]
    rough.backbone.to(torch.bfloat16)
    found = []
    for method in (exact, rough):
        method.set_references(noise(1, seed=9).to(method.backbone.dtype))
        found.append(judge(method, noise(2).to(method.backbone.dtype), text))
    assert found[1].anomaly_map.dtype == torch.float32
    close(found[1].anomaly_map, found[0].anomaly_map, atol=0.05, rtol=0)
    close(found[1].score, found[0].score, atol=0.05, rtol=0)
