"""Captions of rendered images: what it shows, its state, and what is wrong with it, in varied sentences.

A fifth of the captions say "object" instead of the noun, so that the bare words "object" and "damaged
object", which object-agnostic prompts use, get a meaning. The ensemble of states and templates follows the
idea of WinCLIP's compositional prompts (arXiv:2303.14814); the lists here are this project's own.
"""

from __future__ import annotations

from collections.abc import Collection

from headclip.data.synthetic.base import Rng

OBJECT_SHARE = 0.2

NORMAL_STATES: tuple[str, ...] = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "normal {}",
    "good {}",
    "intact {}",
    "clean {}",
    "undamaged {}",
    "healthy {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
    "{} in good condition",
)
"""Ways to say that a thing ({}) is as it should be. The bare noun counts as normal."""

ABNORMAL_STATES: tuple[str, ...] = (
    "damaged {}",
    "broken {}",
    "defective {}",
    "imperfect {}",
    "anomalous {}",
    "abnormal {}",
    "faulty {}",
    "flawed {}",
    "{} with flaw",
    "{} with defect",
    "{} with damage",
    "{} with an anomaly",
)
"""Ways to say that something is wrong with a thing ({})."""

TEMPLATES: tuple[str, ...] = (
    "a photo of {a}.",
    "a photo of {a}.",
    "a photo of the {x}.",
    "a close-up photo of {a}.",
    "a close-up photo of the {x}.",
    "a cropped photo of the {x}.",
    "a cropped photo of {a}.",
    "a photo of {a} for visual inspection.",
    "a photo of the {x} for anomaly detection.",
    "a close-up photo of {a} for anomaly detection.",
    "a photo of my {x}.",
    "an inspection image of {a}.",
    "there is {a} in the scene.",
    "this is {a} in the scene.",
    "{a}",
    "{x}",
)
"""Sentences around a state: {x} is the bare phrase, {a} the phrase with its article."""

LOOK_TEMPLATES: dict[str, tuple[str, ...]] = {
    "black and white": ("a black and white photo of the {x}.", "a grey image of {a}."),
    "dark": ("a dark photo of the {x}.", "a dark photo of {a}."),
    "bright": ("a bright photo of the {x}.", "a bright photo of {a}."),
    "blurry": ("a blurry photo of the {x}.", "a blurry photo of {a}."),
    "jpeg corrupted": ("a jpeg corrupted photo of {a}.",),
    "noisy": ("a noisy photo of {a}.", "a low resolution photo of the {x}."),
}
"""Sentences that are used only where the camera really made such a photograph."""

SYNONYMS: dict[str, tuple[str, ...]] = {
    "scratch": ("scratch", "scratch", "scrape", "groove"),
    "crack": ("crack", "crack", "fracture", "break"),
    "thread": ("thread", "fibre", "hair", "foreign thread"),
    "smear": ("smear", "print smear", "streak"),
    "weave fault": ("weave fault", "thread fault", "broken thread", "pulled thread"),
    "line fault": ("line fault", "streak", "faulty line", "band fault"),
    "hole": ("hole", "hole", "pit", "puncture"),
    "stain": ("stain", "spot", "discolouration", "blotch"),
    "spot": ("spot", "blemish", "lesion", "soft spot"),
    "dent": ("dent", "dent", "bump", "deformation"),
    "contamination": ("contamination", "foreign particles", "dirt", "debris"),
    "blister": ("blister", "bubble"),
    "rust": ("rust spot", "rust", "corrosion"),
    "broken area": ("broken area", "dead area", "broken part", "inactive area"),
    "colour shift": ("discolouration", "colour fault", "colour defect"),
    "warp": ("distortion", "deformation", "warped area"),
    "disturbed grain": ("rough patch", "worn spot", "disturbed texture"),
    "foreign texture": ("foreign patch", "foreign material", "wrong texture"),
    "chip": ("chip", "chipped edge", "broken edge", "cut corner"),
    "polyp": ("polyp", "lesion", "growth"),
    "mole": ("mole", "lesion", "dark lesion"),
    "tumour": ("tumour", "tumor", "bright lesion"),
    "ulcer": ("ulcer", "lesion", "inflamed area"),
}
"""Words for each registered defect; names that a scene's variants bring are used as they are."""

UNCOUNTED = frozenset(
    ("foreign particles", "dirt", "debris", "rust", "corrosion", "contamination", "discolouration", "damage")
)
FOUND_IN = ("with", "with", "that has")


def article(phrase: str) -> str:
    """`phrase` with "a" or "an", or bare where it has an article already or is a plural."""
    head = phrase
    for follower in (" with", " that ", " in "):
        head = head.split(follower, 1)[0]
    if head.endswith("s") and not head.endswith(("ss", "us", "is")):
        return phrase
    word = phrase.split(" ", 1)[0].lower()
    if word in {"a", "an", "the", "two", "three", "several", "many", "some"}:
        return phrase
    spoken_vowel = word[:1] in "aeiou" and not word.startswith(("uni", "use", "eu", "one"))
    return f"{'an' if spoken_vowel else 'a'} {phrase}"


def _sentence(phrase: str, rng: Rng, look: Collection[str] = (), look_share: float = 0.2) -> str:
    if look and rng.chance(look_share):
        template = rng.choice(LOOK_TEMPLATES[rng.choice(sorted(look))])
    else:
        template = rng.choice(TEMPLATES)
    return template.format(x=phrase, a=article(phrase))


def normal_caption(noun: str, rng: Rng, look: Collection[str] = ()) -> str:
    """A sentence on a thing without defect. look: words that are true of the photograph (`Look.words`)."""
    thing = "object" if rng.chance(OBJECT_SHARE) else noun
    return _sentence(_normal_phrase(thing, rng), rng, look)


def _normal_phrase(thing: str, rng: Rng) -> str:
    state = NORMAL_STATES[0] if rng.chance(0.1) else rng.choice(NORMAL_STATES[1:])
    return state.format(thing)


def abnormal_caption(
    noun: str,
    rng: Rng,
    defect: str = "",
    look: Collection[str] = (),
    details: Collection[str] = (),
    place: str = "",
) -> str:
    """A sentence on a thing with a defect.

    defect: its name, or "" for a sentence that only says that something is wrong. details: true adjectives of
    the defect ("small", "dark"); place: where it lies ("in the centre"). Both are used in a share of the
    sentences.
    """
    thing = "object" if rng.chance(OBJECT_SHARE) else noun
    if not defect or rng.chance(0.4):
        return _sentence(rng.choice(ABNORMAL_STATES).format(thing), rng, look)
    words = rng.choice(SYNONYMS.get(defect, (defect,)))
    if defect not in SYNONYMS:  # a scene's variant: a "bright missing part" is none
        details = [word for word in details if word not in ("dark", "bright")]
    # The name alone where a word would contradict it ("bright dark lesion").
    used = [word for word in details if rng.chance(0.45) and not {"dark", "bright", "large"} & set(words.split())]
    described = " ".join([*used, words])
    if words not in UNCOUNTED and not words.endswith(("s", "teeth")):
        described = article(described)
    subject = rng.choice(("damaged {}", "defective {}")).format(thing) if rng.chance(0.12) else thing
    where = f" {place}" if place and rng.chance(0.4) else ""
    if rng.chance(0.15):
        return f"{described} on {article(subject)}{where}"
    return _sentence(f"{subject} {rng.choice(FOUND_IN)} {described}{where}", rng, look)


def caption_pair(noun: str, rng: Rng) -> tuple[str, str]:
    """A (normal, abnormal) pair about one thing in one and the same sentence; only the state differs.

    For losses that compare patches with texts: the difference of the pair carries nothing but the state.
    """
    thing = "object" if rng.chance(OBJECT_SHARE) else noun
    template = rng.choice(TEMPLATES)
    normal, abnormal = _normal_phrase(thing, rng), rng.choice(ABNORMAL_STATES).format(thing)
    return template.format(x=normal, a=article(normal)), template.format(x=abnormal, a=article(abnormal))
