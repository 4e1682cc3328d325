"""State words, sentence templates and their ensembles, shared by the methods that describe a named object.

A sentence is a template around a state around the category: `a photo of a {}` + `damaged {}` + `bottle`. Lists are
data, in the order in which the methods publish them (AnoVL's adapter depends on it): compositional prompt ensemble
of WinCLIP (Jeong et al., CVPR 2023), domain-aware prompts of AnoVL (Deng et al., 2023), the templates of CLIP
(Radford et al., 2021) with the states that AdaCLIP and AnomalyCLIP's CLIP-AC baseline put into them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from headclip.clip.backbone import Backbone
from headclip.clip.text import end_positions
from headclip.errors import InputError

_MATCH = 1e-5  # two text vectors closer than this name the same category

# States. CLIP-AC and AdaCLIP use 7 normal and 5 abnormal ones, WinCLIP the same 7 and 4, AnoVL 7 and 7 of its own.
NORMAL_STATES = (
    "{}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
)
ABNORMAL_STATES = ("damaged {}", "broken {}", "{} with flaw", "{} with defect", "{} with damage")
WINCLIP_NORMAL_STATES = NORMAL_STATES
WINCLIP_ABNORMAL_STATES = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")
ANOVL_NORMAL_STATES = ("normal {}", *NORMAL_STATES[1:])
ANOVL_ABNORMAL_STATES = (
    "damaged {}",
    "abnormal {}",
    "imperfect {}",
    "blemished {}",
    "{} with flaw",
    "{} with defect",
    "{} with damage",
)

# Templates of WinCLIP, 22 without a full stop; AnoVL puts other nouns in the place of "photo".
WINCLIP_TEMPLATES = (
    "a cropped photo of the {}",
    "a cropped photo of a {}",
    "a close-up photo of a {}",
    "a close-up photo of the {}",
    "a bright photo of a {}",
    "a bright photo of the {}",
    "a dark photo of the {}",
    "a dark photo of a {}",
    "a jpeg corrupted photo of a {}",
    "a jpeg corrupted photo of the {}",
    "a blurry photo of the {}",
    "a blurry photo of a {}",
    "a photo of a {}",
    "a photo of the {}",
    "a photo of a small {}",
    "a photo of the small {}",
    "a photo of a large {}",
    "a photo of the large {}",
    "a photo of the {} for visual inspection",
    "a photo of a {} for visual inspection",
    "a photo of the {} for anomaly detection",
    "a photo of a {} for anomaly detection",
)
# The public re-implementations of WinCLIP leave one template out, write one of its neighbours twice, and add stops.
WINCLIP_TEMPLATES_STOPPED = tuple(
    f"{template.replace('corrupted photo of a', 'corrupted photo of the')}."
    for template in WINCLIP_TEMPLATES
    if template != "a cropped photo of a {}"
)

# 35 templates of CLIP-AC (AnomalyCLIP's baseline): a choice of those that CLIP was published with.
CLIP_AC_TEMPLATES = (
    *(
        f"a {kind} photo of {article} {{}}."
        for kind in (
            "bad",
            "low resolution",
            "cropped",
            "bright",
            "dark",
            "close-up",
            "black and white",
            "jpeg corrupted",
            "blurry",
            "good",
        )
        for article in ("a", "the")
    ),
    *(f"a photo of {article} {{}}." for article in ("a", "the", "my", "one")),
    *(f"a photo of {article} {size} {{}}." for size in ("cool", "large", "small") for article in ("a", "the")),
    *(f"there is {article} {{}} in the scene." for article in ("a", "the")),
    *(f"this is {article} {{}} in the scene." for article in ("a", "the", "one")),
)
ADACLIP_TEMPLATES = (
    "a bad photo of a {}.",
    "a low resolution photo of the {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
)

# AnoVL's domains: which nouns stand for "photo", by the kind of category.
ANOVL_TEXTURES = frozenset({"carpet", "leather", "grid", "tile", "wood"})
ANOVL_TEXTURE_NOUNS = ("industrial photo", "textural photo", "surface picture")
ANOVL_OBJECT_NOUNS = ("industrial photo", "industrial image", "manufacturing image")


def anovl_templates(category: str) -> tuple[str, ...]:
    """AnoVL's 66 domain-aware templates of a category: 22 for each of its three nouns."""
    nouns = ANOVL_TEXTURE_NOUNS if category in ANOVL_TEXTURES else ANOVL_OBJECT_NOUNS
    filled = [template.replace("photo", noun, 1) for noun in nouns for template in WINCLIP_TEMPLATES]
    return tuple(f"an{text[1:]}" if text.startswith("a i") else text for text in filled)


def readable(category: str) -> str:
    """A category as a reader would say it: `metal_nut` -> `metal nut`.

    Raises:
        InputError: it is empty, or holds braces, which templates use.
    """
    words = " ".join(category.replace("_", " ").replace("-", " ").split())
    if not words or "{" in words or "}" in words:
        raise InputError(f"'{category}' is no category; give the name of what the images show, such as bottle")
    return words


def wanted_categories(categories: Sequence[str] | None, default: str = "object") -> list[str]:
    """The categories to make text vectors for, as they were given; None stands for the default alone.

    Raises:
        InputError: a list without any.
    """
    names = [default] if categories is None else list(categories)
    if not names:
        raise InputError("no category; name what the images show, or leave it out")
    return names


def named_by(text: Tensor, known: Mapping[str, Tensor]) -> list[str] | None:
    """The category of each entry of text vectors (2, E) or (B, 2, E), by the vectors (2, E) that are known of some.

    None where an entry is nobody's.
    """
    names = []
    for vectors in text.detach().float().reshape(-1, *text.shape[-2:]):
        near = (name for name, own in known.items() if (own.to(vectors) - vectors).abs().max() < _MATCH)
        name = next(near, None)
        if name is None:
            return None
        names.append(name)
    return names


def compose(
    category: str,
    states: Sequence[str],
    templates: Sequence[str],
    outer: Literal["templates", "states"] = "templates",
) -> list[str]:
    """Every template around every state of `category`, which is used as it is given.

    outer: which list turns slowest; the order matters only to those who read single sentences.

    >>> compose("bottle", ["perfect {}", "{} without flaw"], ["a photo of a {}."])
    ['a photo of a perfect bottle.', 'a photo of a bottle without flaw.']
    """
    described = [state.format(category) for state in states]
    if outer == "templates":
        return [template.format(text) for template in templates for text in described]
    return [template.format(text) for text in described for template in templates]


def sentence_vectors(backbone: Backbone, sentences: Sequence[str], chunk: int = 64) -> Tensor:
    """(T, E) text vectors as the tower gives them: not of unit length, float32, without gradients."""
    text = backbone.require_text()
    tokenizer = backbone.require_tokenizer()
    with torch.inference_mode(False), torch.no_grad():  # vectors are kept, and may be used where gradients are taken
        ids = tokenizer(list(sentences)).to(backbone.device)
        ids = ids[:, : int(end_positions(ids).max()) + 1]  # causal: what follows the longest sentence is never read
        return torch.cat([text(part).float() for part in ids.split(chunk)])


def mean_vector(vectors: Tensor, *, normalise_each: bool) -> Tensor:
    """(T, E) -> the unit vector (E,) of their mean, each brought to unit length first if `normalise_each`."""
    return F.normalize((F.normalize(vectors, dim=-1) if normalise_each else vectors).mean(dim=0), dim=-1)


def ensemble_vectors(
    backbone: Backbone, normal_sentences: Sequence[str], abnormal_sentences: Sequence[str], *, normalise_each: bool
) -> Tensor:
    """One unit vector for each of the two lists of sentences: (2, E), order normal, abnormal, float32.

    normalise_each: bring each sentence to unit length before the mean (AdaCLIP, CLIP-AC) or not (WinCLIP, AnoVL).

    Raises:
        BackboneError: the backbone has no text tower or no tokenizer.
    """
    sides = (sentence_vectors(backbone, sentences) for sentences in (normal_sentences, abnormal_sentences))
    return torch.stack([mean_vector(vectors, normalise_each=normalise_each) for vectors in sides])
