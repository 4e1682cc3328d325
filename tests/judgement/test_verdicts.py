"""Verdicts, criteria, calibrations as files, which thresholds are chosen, labelled thresholds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headclip.data.levels import quantise
from headclip.errors import InputError
from headclip.judgement import Calibration, CalibrationError, Criteria, Promise, RegionRules, Verdict, judge
from headclip.judgement.calibrate import calibrate, calibrate_labelled
from headclip.judgement.choosing import Judging, choose
from headclip.judgement.conformal import TooFewImagesError
from headclip.judgement.optimal import Costs, optimal_threshold
from headclip.judgement.regions import level_above
from headclip.judgement.scored import Scored
from headclip.prediction import Prediction
from headclip.web.runs import guess
from judgement.stored import stored

SETTINGS = {
    "method": "headclip",
    "config": {"alpha": 0.5, "words": ["a", "b"]},
    "backbone": "embedded",
    "backbone_hash": "1" * 64,
    "checkpoint": "/somewhere/x.safetensors",
    "checkpoint_hash": "2" * 64,
    "image_size": 256,
    "precision": "fp32",
    "references": [],
}


def scored(count: int = 200, rules: RegionRules | None = None) -> Scored:
    rng = np.random.default_rng(0)
    names = [f"{i}.png" for i in range(count)]
    return Scored(names, rng.random(count).tolist(), rng.random(count).tolist(), rules=rules or RegionRules())


def test_each_side_of_each_threshold():
    criteria = Criteria(0.5, 0.4, 0.6)
    assert [criteria.verdict(s).value for s in (0.4, 0.41, 0.6, 0.61)] == ["ok", "review", "review", "defect"]
    assert [criteria.alarm(score) for score in (0.5, 0.51)] == [False, True]
    assert Criteria(0.5, 0.4, None).verdict(1.0) is Verdict.review


def test_judge_takes_criteria_and_calibrations():
    calibration = calibrate(scored(), SETTINGS, Promise(0.05))
    maps = [np.zeros((4, 4), np.float32), np.ones((4, 4), np.float32)]
    by_calibration = judge([0.1, 1.0], maps, calibration)
    assert by_calibration == judge([0.1, 1.0], maps, calibration.criteria())
    assert [len(image.regions) for image in by_calibration] == [0, 1]
    assert judge([0.1, 1.0], None, calibration)[1].regions == ()
    assert judge([1.0], [maps[1]], calibration, pixel_mm=0.5)[0].regions[0].area_mm2 == 4.0
    with pytest.raises(InputError):
        judge([0.1], maps, calibration)
    with pytest.raises(InputError):
        judge([float("nan")], None, calibration)


@pytest.mark.parametrize("wrong", [(0.5, 0.6, 0.7), (0.5, 0.4, 0.45), (float("nan"), 0.4, 0.6)])
def test_impossible_criteria(wrong):
    with pytest.raises(InputError):
        Criteria(*wrong)


@given(st.floats(0, 1), st.none() | st.floats(0, 1), st.none() | st.floats(0.01, 10), st.integers(1, 99))
def test_criteria_through_json(threshold, pixel, pitch, area):
    criteria = Criteria.manual(threshold, pixel, rules=RegionRules(area, 3), pixel_mm=pitch)
    assert Criteria.from_json(json.loads(json.dumps(criteria.to_json()))) == criteria


def test_a_calibration_as_a_file(tmp_path):
    found = calibrate(scored(rules=RegionRules(4, 2)), SETTINGS, Promise(0.05, contaminated=0.02))
    found.save(tmp_path / "c.json")
    read = Calibration.load(tmp_path / "c.json")
    assert read == found
    assert read.criteria() == found.criteria()
    assert (read.min_area, read.ignore_border) == (4, 2)
    assert "/somewhere" not in (tmp_path / "c.json").read_text()
    assert {"threshold", "low", "high", "images"} <= set(json.loads((tmp_path / "c.json").read_text())["image"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backbone_hash": "3" * 64}, "backbone hash"),
        ({"config": {"alpha": 0.7, "words": ["a", "b"]}}, "config.alpha 0.5 there, 0.7 here"),
        ({"config": {"alpha": 0.5, "words": ["a", "c"]}}, "config.words"),
        ({"image_size": 518}, "image size 256 there, 518 here"),
        ({"checkpoint_hash": None}, "checkpoint hash"),
        ({"category": "bottle"}, "category none there, bottle here"),
    ],
)
def test_another_model_is_refused(change, words):
    found = calibrate(scored(), SETTINGS, Promise(0.05))
    with pytest.raises(CalibrationError, match=words):
        found.check_fits({**SETTINGS, **change})


def test_the_same_model_elsewhere_is_not():
    found = calibrate(scored(), SETTINGS, Promise(0.05))
    found.check_fits(
        {
            **SETTINGS,
            "checkpoint": "/elsewhere/y.safetensors",
            "precision": "bf16",
            "calibration": {"x": 1},
            "engine": "onnxruntime",
        }
    )


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"format": "headclip-calibration"}', '{"format": "headclip-calibration", "version": 99}'],
)
def test_files_that_are_no_calibration(tmp_path, content):
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(CalibrationError):
        Calibration.load(tmp_path / "c.json")
    with pytest.raises(CalibrationError):
        Calibration.load(tmp_path / "missing.json")


def test_a_newer_format_says_so(tmp_path):
    values = json.loads(calibrate(scored(), SETTINGS, Promise(0.05)).to_json())
    (tmp_path / "c.json").write_text(json.dumps(values | {"version": 2}))
    with pytest.raises(CalibrationError, match="newer headclip"):
        Calibration.load(tmp_path / "c.json")


def test_regions_of_images_that_are_not_ok_are_drawn_more_generously():
    values = np.zeros((8, 8), np.float32)
    values[1:3, 1:3], values[2, 2], values[5:7, 5:8] = 0.6, 0.8, 0.6
    strict = Criteria(0.5, 0.4, 0.6, pixel=0.7)
    generous = Criteria(0.5, 0.4, 0.6, pixel=0.7, alarm_pixel=0.55)
    areas = {
        score: [[region.area for region in judge([score], [values], rule)[0].regions] for rule in (strict, generous)]
        for score in (0.4, 0.45, 0.9)
    }
    assert areas == {0.4: [[1], [1]], 0.45: [[1], [4, 6]], 0.9: [[1], [4, 6]]}
    assert Criteria(0.5, 0.4, 0.6, pixel=0.7, alarm_pixel=0.9).pixel_for(0.9) == 0.7  # never fewer than elsewhere
    assert Criteria(0.5, 0.4, 0.6, alarm_pixel=0.5).pixel_for(0.9) is None
    with pytest.raises(InputError):
        Criteria(0.5, 0.4, 0.6, pixel=0.7, alarm_pixel=float("nan"))


def test_the_lower_threshold_keeps_its_promise_of_small_areas():
    """Of 99 images at most 5 % may show more than 2 % of their pixels; it is the fifth highest of these levels."""
    rng = np.random.default_rng(1)
    found = Scored(rules=RegionRules(ignore_border=1))
    maps = 0.01 + 0.9 * rng.random((99, 12, 12)).astype(np.float32) ** rng.uniform(0.3, 5, (99, 1, 1))
    for number, values in enumerate(maps):
        found.add(str(number), Prediction(number / 100, 0, 0, values))
    calibration = calibrate(found, SETTINGS, Promise(0.05))
    inner = quantise(maps[:, 1:-1, 1:-1]).reshape(99, -1)
    level = level_above(calibration.alarm_pixel.threshold)
    assert sum((values > level).mean() > 0.02 for values in inner) == 4  # the fifth highest of 99 leaves four above
    assert sum((values > level - 1).mean() > 0.02 for values in inner) == 5
    assert calibration.criteria().alarm_pixel == calibration.alarm_pixel.threshold < calibration.pixel.threshold
    assert Calibration.from_values(json.loads(calibration.to_json())) == calibration


def test_calibrations_and_runs_of_before_have_one_pixel_threshold():
    values = json.loads(calibrate(scored(), SETTINGS, Promise(0.05)).to_json())
    assert values.pop("alarm_pixel") is None
    assert Calibration.from_values(values).criteria().alarm_pixel is None
    rule = Criteria.manual(0.5, 0.4).to_json()
    del rule["alarm_pixel"]
    assert Criteria.from_json(rule) == Criteria.manual(0.5, 0.4)


def test_tightest_takes_what_the_images_can_keep():
    with pytest.raises(TooFewImagesError):
        calibrate(scored(30), SETTINGS, Promise(0.01))
    found = calibrate(scored(30), SETTINGS, Promise(0.01), tightest=True)
    assert found.terms.false_alarms == pytest.approx(1 / 31)
    assert found.image.threshold == max(scored(30).scores)
    assert "3.23 %" in found.describe()
    assert calibrate(scored(200), SETTINGS, Promise(0.05), tightest=True).terms.false_alarms == 0.05


class TestChoosing:
    found = calibrate(scored(rules=RegionRules(4)), SETTINGS, Promise(0.05))

    def test_nothing_is_known(self):
        assert choose(Judging(), SETTINGS).criteria is None

    def test_the_checkpoint_has_a_default(self):
        settings_ = {**SETTINGS, "calibration": json.loads(self.found.to_json())}
        assert choose(Judging(), settings_).criteria == self.found.criteria()
        assert choose(Judging(), {**settings_, "roi": "0,0,50%,50%"}).criteria == self.found.criteria()
        other = choose(Judging(), {**settings_, "image_size": 518})
        assert other.criteria is None
        assert "image size" in other.note

    def test_what_is_in_force_stays(self):
        facts = {"criteria": Criteria.manual(0.3, 0.2).to_json(), "calibration": None, "note": "by hand"}
        settings_ = {**SETTINGS, "calibration": json.loads(self.found.to_json())}
        assert choose(Judging(), settings_, facts).criteria == Criteria.manual(0.3, 0.2)
        changed = choose(Judging(threshold=0.4, pixel_mm=0.1), settings_, facts).criteria
        assert (changed.threshold, changed.pixel, changed.pixel_mm) == (0.4, 0.2, 0.1)

    def test_a_pixel_threshold_by_hand_holds_in_all_images(self):
        facts = {"criteria": Criteria(0.3, 0.3, 0.3, 0.6, alarm_pixel=0.4).to_json(), "calibration": None}
        assert choose(Judging(threshold=0.4), SETTINGS, facts).criteria.alarm_pixel == 0.4
        by_hand = choose(Judging(threshold=0.4, pixel_threshold=0.5), SETTINGS, facts).criteria
        assert (by_hand.pixel, by_hand.alarm_pixel) == (0.5, None)

    def test_a_file_that_does_not_fit_is_refused(self):
        with pytest.raises(CalibrationError):
            choose(Judging(calibration=self.found), {**SETTINGS, "image_size": 518})

    def test_weaker_rules_void_the_promise_and_say_so(self):
        assert "More regions" in choose(Judging(calibration=self.found, min_area=2), SETTINGS).note
        assert "More regions" not in choose(Judging(calibration=self.found, min_area=9), SETTINGS).note

    def test_what_excludes_each_other(self):
        with pytest.raises(InputError):
            Judging(calibration=self.found, threshold=0.5)
        with pytest.raises(InputError):
            choose(Judging(pixel_threshold=0.5), SETTINGS)


labelled_scores = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=40).filter(
    lambda pairs: len({kind for _, kind in pairs}) == 2
)


@settings(deadline=None, max_examples=50)
@given(
    labelled_scores,
    st.none() | st.builds(Costs, st.floats(0.1, 50), st.floats(0.1, 50), st.none() | st.floats(0.01, 0.9)),
)
def test_optimal_thresholds_by_brute_force(pairs, costs):
    scores, anomalous = np.array([s for s, _ in pairs]) / 12, np.array([kind for _, kind in pairs])

    def worth(threshold: float) -> float:
        alarm = scores > threshold
        caught, false_alarms = (alarm & anomalous).sum(), (alarm & ~anomalous).sum()
        if costs is None:
            return 2 * caught / (anomalous.sum() + caught + false_alarms)
        share = anomalous.mean() if costs.prevalence is None else costs.prevalence
        missed = costs.miss * share * (1 - caught / anomalous.sum())
        return -(missed + costs.false_alarm * (1 - share) * false_alarms / (~anomalous).sum())

    found = optimal_threshold(scores, anomalous, costs, draws=200)
    best = max(worth(threshold) for threshold in [-1.0, *scores])
    assert worth(found.threshold) == pytest.approx(best)
    assert abs(found.value) == pytest.approx(abs(best))
    assert found.low <= found.threshold <= found.high


def test_dear_misses_lower_the_threshold():
    scores = np.concatenate([stored("sdd"), stored("sdd", label=1)])
    truth = np.arange(len(scores)) >= len(stored("sdd"))
    cheap, dear = (optimal_threshold(scores, truth, Costs(miss)).threshold for miss in (1, 100))
    assert dear < cheap
    assert optimal_threshold(scores, truth) == optimal_threshold(scores, truth)  # the same draws


def test_neighbouring_numbers_are_told_apart():
    low = 0.3
    high = float(np.nextafter(low, 1))
    found = optimal_threshold([low, low, high, high], [False, False, True, True])
    assert found.value == 1.0
    assert low <= found.threshold < high


def test_labelled_calibration():
    images = scored(100)
    labels = {name: int(score > 0.7) for name, score in zip(images.names, images.scores, strict=True)}
    found = calibrate_labelled(images, labels, SETTINGS)
    assert all(
        (score > found.image.threshold) == bool(labels[n]) for n, score in zip(images.names, images.scores, strict=True)
    )
    assert found.kind == "labelled"
    assert found.pixel.images == sum(label == 0 for label in labels.values())
    with pytest.raises(InputError, match="both kinds"):
        calibrate_labelled(images, dict.fromkeys(images.names, 0), SETTINGS)


@pytest.mark.parametrize("wrong", [{"miss": 0}, {"false_alarm": -1}, {"prevalence": 1.0}, {"miss": float("nan")}])
def test_nonsensical_costs(wrong):
    with pytest.raises(InputError):
        Costs(**wrong)


@pytest.mark.parametrize(("value", "words"), [(70, r"for 70 % write 0\.7"), (-0.1, "between 0 and 1"), (np.nan, "nan")])
def test_thresholds_by_hand_lie_where_scores_do(value, words):
    for ask in (
        lambda: Criteria.manual(value),
        lambda: Criteria.manual(0.5, value),
        lambda: Judging(threshold=value),
        lambda: Judging(threshold=0.5, pixel_threshold=value),
    ):
        with pytest.raises(InputError, match=words):
            ask()
    assert Criteria.manual(0.0, 1.0).threshold == Judging(threshold=0.0, pixel_threshold=1.0).threshold == 0.0


def test_calibrated_thresholds_may_lie_a_hair_outside():
    below = np.nextafter(0.0, -1.0)
    found = optimal_threshold([0.0, 0.5], [True, False])
    assert found.threshold == below
    criteria = Criteria(below, below, below, pixel=-7.6e-06)
    judgement = {"criteria": criteria.to_json(), "calibration": None, "note": ""}
    again = choose(Judging(threshold=0.4), {}, judgement).criteria
    assert (again.threshold, again.pixel) == (0.4, -7.6e-06)
    assert guess([1.5, 1.5]).criteria.threshold == 1.5  # somebody else's run
