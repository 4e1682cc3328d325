"""What is said of a model: head weights, words near prompts, and the parts of a score."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from headclip.errors import InputError
from headclip.inference.detector import Detector
from headclip.inspection import inspect_image, inspect_model, plain, prompt_words
from headclip.methods import create_method, list_methods
from headclip.methods.checkpoint import save_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:no checkpoint")


def trained(tiny, folder, name="headclip", **settings):
    """A detector whose checkpoint differs from the first values in known ways."""
    method = create_method(name, tiny, {"seed": 5, **settings})
    with torch.no_grad():
        for parameter in method.trainable().values():
            parameter += 0.5
    save_checkpoint(folder / "c.safetensors", method)
    return Detector(tiny, folder / "c.safetensors", device="cpu", precision="fp32", image_size=42)


def test_head_weights_before_and_after(tiny, tmp_path):
    heads = inspect_model(trained(tiny, tmp_path, csa_layers=[2, 3])).heads
    assert heads.layers == (2, 3)
    np.testing.assert_allclose(heads.start, np.ones((2, 2)))
    np.testing.assert_allclose(heads.weights, np.full((2, 2), 1.5))
    assert heads.span == pytest.approx(0.5)


def test_gaussian_first_values_are_drawn_again(tiny, tmp_path):
    heads = inspect_model(trained(tiny, tmp_path, head_init="gaussian")).heads
    np.testing.assert_allclose(heads.weights - heads.start, 0.5, atol=1e-6)
    assert heads.start.std() > 0


def test_a_constraint_is_applied(detector_of):
    heads = inspect_model(detector_of("headclip", head_constraint="softmax")).heads
    np.testing.assert_allclose(heads.weights.mean(axis=1), 1.0, atol=1e-6)
    assert heads.constraint == "softmax"


def test_a_token_that_is_a_word_finds_it(detector_of):
    detector = detector_of("headclip")
    number = 610
    table = detector.backbone.text.token_embedding.weight
    with torch.no_grad():
        detector.method.prompts.abnormal_context[3] = table[number]
    for measure in ("euclidean", "cosine"):
        words = prompt_words(detector.method, count=3, measure=measure)
        nearest = words.contexts[1].tokens[3].words
        assert nearest[0].number == number
        assert nearest[0].distance == pytest.approx(0.0, abs=1e-5)
        assert (nearest[0].text, nearest[0].whole) == detector.backbone.tokenizer.symbol(number)
        assert [word.distance for word in nearest] == sorted(word.distance for word in nearest)
        assert words.share_beyond < 1.0


def test_usual_distances_are_those_of_the_vocabulary(detector_of):
    """Held against a plain computation over all words, marks left out."""
    detector = detector_of("headclip")
    words = prompt_words(detector.method)
    table = detector.backbone.text.token_embedding.weight.detach()[:-2].double()  # the two marks come last
    distances = torch.cdist(table, table, compute_mode="donot_use_mm_for_euclid_dist")
    nearest = distances.fill_diagonal_(torch.inf).amin(dim=1)
    expected = nearest.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64))
    np.testing.assert_allclose(words.usual, expected, rtol=1e-4)
    assert words.vocabulary == len(table)


def test_how_far_training_moved_prompts(tiny, tmp_path):
    prompts = inspect_model(trained(tiny, tmp_path)).prompts
    width = tiny.config.text.width
    for context in prompts.contexts:
        for token in context.tokens:
            assert token.moved == pytest.approx(0.5 * width**0.5, rel=1e-4)
            assert token.start_distance is not None
            assert token.start_distance < token.words[0].distance
    assert all(deep.moved == pytest.approx(0.5 * width**0.5, rel=1e-4) for deep in prompts.deep)


@pytest.mark.parametrize(("shared", "names"), [(True, ["both"]), (False, ["normal", "abnormal"])])
def test_coop_has_one_context_or_two(detector_of, shared, names):
    words = inspect_model(detector_of("coop", shared_context=shared, n_context=3, category="bolt")).prompts
    assert [context.name for context in words.contexts] == names
    assert all("bolt" in context.ending for context in words.contexts)
    assert [len(context.tokens) for context in words.contexts] == [3] * len(names)


@pytest.mark.parametrize("name", list_methods())
def test_any_method_shows_what_there_is(detector_of, picture, name):
    """The parts make the score, the curve meets the score, and what is missing has a reason."""
    detector = detector_of(name, **({"augment": False, "adapt": False} if name == "anovl" else {}))
    model = inspect_model(detector)
    assert (model.heads is None) == ("heads" in model.absent)
    assert (model.prompts is None) == ("prompts" in model.absent)
    seen = inspect_image(detector, picture)
    assert (seen.layers is None) == ("layers" in seen.absent)
    split, alone = seen.split, detector.predict_arrays([picture])[0]
    assert split.score == pytest.approx(alone.score, abs=1e-5)
    np.testing.assert_allclose(seen.anomaly_map, alone.anomaly_map, atol=1e-5)
    assert split.global_part + split.local_part == pytest.approx(split.score, abs=1e-5)
    assert split.score_at(top_share=split.top_share) == pytest.approx(split.score, abs=1e-5)
    assert split.score_at(alpha=0.0) == pytest.approx(split.global_score)
    assert np.all(np.diff(split.local_by_share) <= 1e-9)
    text = json.dumps(plain(seen, frozenset({"image", "anomaly_map"})))
    assert '"anomaly_map"' not in text
    assert json.dumps(plain(model), default=str)


@pytest.mark.parametrize(
    "settings",
    [{}, {"top_level": "patches"}, {"normalise_map": "image"}, {"aggregation": "layers", "tap_fusion": "sum"}],
)
def test_what_if_equals_judging_again(detector_of, picture, settings):
    first = inspect_image(detector_of("headclip", **settings), picture).split
    again = inspect_image(detector_of("headclip", **settings, alpha=0.8, top_share=0.1), picture).split
    assert first.local_at(0.1) == pytest.approx(again.local_score, abs=5e-3)  # between points: a straight line
    assert first.score_at(0.8, 0.1) == pytest.approx(again.score, abs=5e-3)
    exact = again.local_by_share[np.flatnonzero(again.shares == 0.1)]
    assert exact == pytest.approx(again.local_score, abs=1e-6)


def test_impossible_settings_are_refused(detector_of, picture):
    split = inspect_image(detector_of("headclip"), picture).split
    for wrong in ({"alpha": 1.1}, {"top_share": 0.0}, {"top_share": 2.0}):
        with pytest.raises(InputError):
            split.score_at(**wrong)


def test_a_published_checkpoint_has_no_known_start(tiny, tmp_path):
    detector = trained(tiny, tmp_path)
    detector.info = replace(detector.info, training={"source": "official"})
    model = inspect_model(detector)
    assert model.heads.start is None
    assert "others published" in model.absent["start"]
    assert all(token.moved is None for context in model.prompts.contexts for token in context.tokens)


def test_plain_values():
    assert plain({"x": np.array([[1.5, np.nan]]), 2: (True, None, "a")}) == {"x": [[1.5, None]], "2": [True, None, "a"]}
