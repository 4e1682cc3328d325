"""The vocabulary words that lie nearest to learnt prompts.

A learnt context token is a point in the space of word embeddings, not a word. The words around it are shown because
people ask for them; CoOp's authors already found most of theirs to be meaningless. So every distance here comes with
two others to hold it against: how far real words lie from each other, and how far from any word the token lay before
training. A token that is further from all words than words are from each other means none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from headclip.clip.backbone import Backbone
from headclip.methods.base import Method
from headclip.methods.prompts import PromptLearner

Measure = Literal["euclidean", "cosine"]
_SAMPLE = 1024  # words from whose neighbours the usual distance is taken
_CHUNK = 256  # rows of distances at a time


@dataclass(frozen=True)
class NearWord:
    """One vocabulary token. text: as it reads; whole: it ends a word, rather than being a piece of one; number: its
    id; distance: to the learnt token."""

    text: str
    whole: bool
    number: int
    distance: float


@dataclass(frozen=True)
class ContextToken:
    """One learnt token. position: from 1, after the start mark; norm: its length; moved: Euclidean distance that
    training moved it; start_distance: from its first value to the word nearest to that; None where not known."""

    position: int
    words: tuple[NearWord, ...]
    norm: float
    moved: float | None = None
    start_distance: float | None = None


@dataclass(frozen=True)
class ContextWords:
    """The learnt tokens of one sentence. name: "normal", "abnormal" or "both"; ending: the words that follow them."""

    name: str
    ending: str
    tokens: tuple[ContextToken, ...]


@dataclass(frozen=True)
class DeepTokens:
    """Learnt tokens inside the text tower. layer: from 1; norms: of its tokens, mean; moved: by training, mean."""

    layer: int
    count: int
    norm: float
    moved: float | None = None


@dataclass(frozen=True)
class PromptWords:
    """The learnt prompts of a method.

    usual: 5 %, 50 % and 95 % quantile of the distance from a vocabulary token to the nearest other one. vocabulary:
    tokens compared with. deep: tokens in the text tower; they replace states, not words, so no word is near them.
    """

    measure: Measure
    contexts: tuple[ContextWords, ...]
    usual: tuple[float, float, float]
    vocabulary: int
    word_norm: float
    deep: tuple[DeepTokens, ...] = ()

    @property
    def share_beyond(self) -> float:
        """Share of the learnt tokens that lie further from every word than 95 % of words do from each other."""
        nearest = [token.words[0].distance for context in self.contexts for token in context.tokens]
        return float(np.mean([distance > self.usual[2] for distance in nearest])) if nearest else 0.0


def prompt_words(
    method: Method, start: Method | None = None, *, count: int = 5, measure: Measure = "euclidean"
) -> PromptWords | None:
    """The nearest words of every learnt context token; None for a method without learnt words.

    Args:
        start: the same method before training.
        count: words for each token, nearest first.
        measure: "euclidean" distance of the embeddings, or "cosine" distance, 1 - cosine.

    Raises:
        BackboneError: the backbone has no tokenizer to name words with.
    """
    contexts = _contexts(method)
    if not contexts:
        return None
    backbone = method.backbone
    first = dict.fromkeys(contexts) if start is None else {name: found for name, (_, found) in _contexts(start).items()}
    words = _Vocabulary(backbone, measure)
    found = []
    for name, (ending, tokens) in contexts.items():
        before = first.get(name)
        found.append(ContextWords(name, ending, words.describe(tokens, before, count)))
    return PromptWords(measure, tuple(found), words.usual(), len(words.table), words.norm, _deep(method, start))


def _contexts(method: Method) -> dict[str, tuple[str, Tensor]]:
    """Name -> the words that follow, and the learnt tokens (n, W), of each sentence."""
    learner = getattr(method, "prompts", None)
    if isinstance(learner, PromptLearner):
        category = getattr(method.config, "category", "")
        normal, abnormal = (words.replace("{}", category) for words in method.config.words)
        return {
            "normal": (normal, learner.normal_context.detach()),
            "abnormal": (abnormal, learner.abnormal_context.detach()),
        }
    context = getattr(method, "context", None)
    if not isinstance(context, Tensor):
        return {}
    endings = [ending.replace("{}", method.config.category) for ending in method.config.endings]
    if len(context) == 1:
        return {"both": (" / ".join(endings), context[0].detach())}
    return {name: (endings[i], context[i].detach()) for i, name in enumerate(("normal", "abnormal"))}


def _deep(method: Method, start: Method | None) -> tuple[DeepTokens, ...]:
    learner = getattr(method, "prompts", None)
    if not isinstance(learner, PromptLearner):
        return ()
    before = getattr(start, "prompts", None)
    found = []
    for index, layer in enumerate(learner.deep_layers):
        tokens = learner.deep_tokens[index].detach().float()
        moved = None
        if isinstance(before, PromptLearner):
            moved = float((tokens - before.deep_tokens[index].detach().float()).norm(dim=-1).mean())
        found.append(DeepTokens(layer, len(tokens), float(tokens.norm(dim=-1).mean()), moved))
    return tuple(found)


class _Vocabulary:
    """The word embeddings of a backbone, without its start and end marks."""

    def __init__(self, backbone: Backbone, measure: Measure) -> None:
        self.tokenizer = backbone.require_tokenizer()
        self.measure = measure
        marks = {self.tokenizer.sot_id, self.tokenizer.eot_id}
        table = backbone.require_text().token_embedding.weight.detach().float()  # (V, W)
        self.numbers = [number for number in range(len(table)) if number not in marks]
        self.table = table[self.numbers]
        self.norm = float(self.table.norm(dim=-1).median())

    def distances(self, tokens: Tensor, *, fast: bool = False) -> Tensor:
        """(n, W) -> (n, V). fast: by a matrix product, which errs a little where a distance is small."""
        tokens = tokens.to(self.table)
        if self.measure == "cosine":
            return 1.0 - F.normalize(tokens, dim=-1) @ F.normalize(self.table, dim=-1).T
        mode = "use_mm_for_euclid_dist" if fast else "donot_use_mm_for_euclid_dist"
        return torch.cdist(tokens, self.table, compute_mode=mode)

    def usual(self) -> tuple[float, float, float]:
        """Quantiles 5 %, 50 % and 95 % of the distance to the nearest other word, over words spread evenly by id."""
        step = max(1, len(self.table) // _SAMPLE)
        rows = torch.arange(0, len(self.table), step, device=self.table.device)
        nearest = []
        for part in rows.split(_CHUNK):
            distances = self.distances(self.table[part], fast=True)  # (chunk, V)
            distances[torch.arange(len(part)), part] = torch.inf
            nearest.append(distances.amin(dim=1))
        low, middle, high = torch.cat(nearest).quantile(torch.tensor([0.05, 0.5, 0.95], device=rows.device)).tolist()
        return low, middle, high

    def describe(self, tokens: Tensor, before: Tensor | None, count: int) -> tuple[ContextToken, ...]:
        distances, order = self.distances(tokens).topk(count, dim=1, largest=False)
        starts = None if before is None else self.distances(before).amin(dim=1).tolist()
        moved = None if before is None else (tokens.float() - before.float()).norm(dim=-1).tolist()
        return tuple(
            ContextToken(
                position=row + 1,
                words=tuple(self._word(int(i), float(d)) for i, d in zip(order[row], distances[row], strict=True)),
                norm=float(tokens[row].float().norm()),
                moved=None if moved is None else moved[row],
                start_distance=None if starts is None else starts[row],
            )
            for row in range(len(tokens))
        )

    def _word(self, index: int, distance: float) -> NearWord:
        number = self.numbers[index]
        text, whole = self.tokenizer.symbol(number)
        readable = text if text.isprintable() else text.encode("unicode_escape").decode()
        return NearWord(readable, whole, number, distance)
