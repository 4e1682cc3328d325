"""AdaCLIP (Cao et al., ECCV 2024): hybrid static and dynamic prompts in both towers, learnt projections, and hybrid
semantic fusion of the most anomalous patches into the image score.

Numbers follow the published code where it and the paper differ. It handles one image at a time; here each image of a
batch has its own prompts and its own sentences, and scores the same alone and in company.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headclip.clip.backbone import Backbone
from headclip.clip.blocks import ACTIVATIONS
from headclip.clip.text import end_positions
from headclip.clip.vision import VisionRequest, VisionTokens
from headclip.errors import InputError
from headclip.methods.adaclip_checkpoint import check_tensors, describe, our_names
from headclip.methods.adaclip_config import AdaClipConfig
from headclip.methods.adaclip_fusion import semantic_vector
from headclip.methods.adaclip_prompts import (
    HybridPrompts,
    first_text_layer,
    image_vector,
    linear,
    prompted_text,
    prompted_vision,
)
from headclip.methods.base import Scores, TrainableMethod, config_from_dict, method_seed, register
from headclip.methods.ensembles import (
    ABNORMAL_STATES,
    ADACLIP_TEMPLATES,
    NORMAL_STATES,
    compose,
    named_by,
    readable,
    wanted_categories,
)
from headclip.methods.scoring import grid_to_map, joint_score, top_share_mean
from headclip.methods.similarity import check_taps, proportional_taps

PAPER_TAPS = (6, 12, 18, 24)  # of 24 layers


@dataclass
class AdaTokens(VisionTokens):
    """A prompted vision pass. The local tokens are those of the global stream, prompt tokens left out.

    dynamic_text: (B, length, Wt) what the image adds to the text prompts, or None. text: (B, 2, E), made once.
    """

    dynamic_text: Tensor | None = None
    text: tuple[tuple[str, ...], Tensor] | None = None


@register("adaclip")
class AdaClip(TrainableMethod):
    """AdaCLIP on any backbone that has a text tower.

    Learnt: static prompts, the generators of the dynamic ones, a projection for each tap and one for the image vector.
    """

    config_class = AdaClipConfig
    config: AdaClipConfig
    summary: ClassVar[str] = "prompts learnt and made from the image in both towers, clustered patches in the score"
    learns: ClassVar[str] = "static prompts, prompt generators, projections"
    uses_category: ClassVar[bool] = True
    image_loss: ClassVar[Literal["cross_entropy", "focal"]] = "focal"
    training_defaults: ClassVar[Mapping[str, Any]] = {"epochs": 5, "batch_size": 1, "rate": 1e-2}

    def __init__(self, backbone: Backbone, config: AdaClipConfig | None = None) -> None:
        super().__init__(backbone, config or AdaClipConfig())
        settings, embed = self.config, backbone.config.embed_dim
        vision, text = backbone.config.vision, backbone.require_text().config
        self.taps = proportional_taps(PAPER_TAPS, vision.layers) if settings.taps is None else settings.taps
        check_taps("AdaCLIP", self.taps, vision.layers)
        if settings.depth is not None and settings.depth > min(vision.layers, text.layers):
            raise InputError(
                f"AdaCLIP: prompts in {settings.depth} layers do not fit towers of {vision.layers} (vision) and "
                f"{text.layers} (text) layers"
            )
        kinds = {"static": settings.static, "dynamic": settings.dynamic}
        generator = method_seed(settings.seed)
        self.vision_prompts: HybridPrompts | None = None
        self.text_prompts: HybridPrompts | None = None
        if settings.vision_prompts:
            layers = tuple(range(1, (settings.depth or min(4, vision.layers)) + 1))
            self.vision_prompts = HybridPrompts(
                layers, settings.length, vision.width, embed, **kinds, generator=generator
            )
        if settings.text_prompts:
            layers = tuple(range(2, (settings.depth or min(4, text.layers)) + 1))
            self.text_prompts = HybridPrompts(layers, settings.length, text.width, embed, **kinds, generator=generator)
        self.patch_heads = nn.ModuleList([linear(vision.width, embed, generator) for _ in self.taps])
        self.image_head = linear(embed, embed, generator)
        self.activate = None if settings.activation is None else ACTIVATIONS[settings.activation]
        self._known: dict[str, Tensor] = {}
        self._ids: dict[str, tuple[Tensor, Tensor]] = {}
        self.to(backbone.device)

    def learnt_layers(self) -> dict[str, tuple[int, ...]]:
        return {"projections": self.taps}

    @property
    def request(self) -> VisionRequest:
        """The towers are read in a pass of AdaCLIP's own, so that this says no more than the layers."""
        return VisionRequest(taps=self.taps, interpolation=self.config.position_interpolation)

    @property
    def text_reads_image(self) -> bool:
        """Whether each image has text vectors of its own."""
        return self.config.text_prompts and self.config.dynamic

    def optimiser(self, groups: list[dict[str, Any]], rate: float, betas: tuple[float, float]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups, lr=rate, betas=betas, weight_decay=0.01)

    # --- sentences

    def sentences(self, category: str) -> tuple[list[str], list[str]]:
        """The 28 normal and 20 abnormal sentences of a category.

        Raises:
            InputError: no category.
        """
        readable(category)  # refuses empty names and braces
        name = category.replace("-", " ") if self.config.underscores else readable(category)
        normal, abnormal = (
            compose(name, states, ADACLIP_TEMPLATES, outer="states") for states in (NORMAL_STATES, ABNORMAL_STATES)
        )
        return normal, abnormal

    def _token_ids(self, category: str) -> tuple[Tensor, Tensor]:
        """Byte-pair ids of a category's sentences, normal (28, 77) and abnormal (20, 77); made once."""
        if category not in self._ids:
            tokenizer = self.backbone.require_tokenizer()
            normal, abnormal = (tokenizer(sentences) for sentences in self.sentences(category))
            self._ids[category] = normal, abnormal
        return self._ids[category]

    def _encode(self, names: Sequence[str], prompts: HybridPrompts | None, dynamic: Tensor | None) -> Tensor:
        """Names, one for each image or one for all, to unit vectors (B, 2, E).

        dynamic: (B, length, Wt), which sets B; without it B is the number of names.
        """
        text, device = self.backbone.require_text(), self.backbone.device
        different = list(dict.fromkeys(names))
        normal = len(self._token_ids(different[0])[0])
        ids = torch.stack([torch.cat(self._token_ids(name)) for name in different]).to(device)  # (C, S, 77)
        ends = end_positions(ids)  # (C, S)
        if prompts is not None and int(ends.min()) <= prompts.length:
            raise InputError(
                f"AdaCLIP: prompts of {prompts.length} tokens would overwrite the end of a sentence of "
                f"{int(ends.min()) - 1}; take a smaller length"
            )
        ids = ids[..., : int(ends.max()) + 1]  # causal: what follows the longest sentence is never read
        batch = len(names) if dynamic is None else len(dynamic)
        rows = torch.tensor([different.index(name) for name in names], device=device).expand(batch)
        states = first_text_layer(text, ids, self.activate)[rows]  # (B, S, L, W)
        tokens = {} if prompts is None else self._rounded(prompts(dynamic, batch))
        unit = F.normalize(prompted_text(text, states, ends[rows], tokens, self.activate).float(), dim=-1)  # (B, S, E)
        sides = torch.stack([unit[:, :normal].mean(dim=1), unit[:, normal:].mean(dim=1)], dim=1)
        return F.normalize(sides, dim=-1)

    def _rounded(self, prompts: dict[int, Tensor]) -> dict[int, Tensor]:
        if not self.config.prompt_half:
            return prompts
        return {layer: tokens.half().to(tokens.dtype) for layer, tokens in prompts.items()}

    def text_vectors(self, categories: Sequence[str] | None = None) -> Tensor:
        """(C, 2, E), one pair for each category (None: the configured one alone).

        With dynamic text prompts the vectors depend on the image: then these are the sentences' vectors in the plain
        tower, which tell `score` the category, and `image_text` makes the image's own.

        Raises:
            InputError: an empty category, or none in the list.
        """
        names = wanted_categories(categories, self.config.category)
        if not self.text_reads_image:
            return self._encode(names, self.text_prompts, None)
        for name in dict.fromkeys(names):
            if name not in self._known:
                with torch.inference_mode(False), torch.no_grad():
                    self._known[name] = self._encode([name], None, None)[0]
        return torch.stack([self._known[name] for name in names]).to(self.backbone.device)

    def named_by(self, text: Tensor) -> tuple[str, ...]:
        """The categories whose entries of `text_vectors` make up (2, E) or (B, 2, E).

        Raises:
            InputError: an entry that `text_vectors` did not make.
        """
        names = named_by(text, self._known)
        if names is None:
            raise InputError("AdaCLIP makes text vectors for each image; give `score` what its text_vectors gave")
        return tuple(names)

    def image_text(self, tokens: VisionTokens, text: Tensor) -> Tensor:
        """(B, 2, E) unit text vectors of the images, for `text` as `score` takes it."""
        batch = len(tokens.cls)
        if text.dim() == 3 and len(text) not in (1, batch):
            raise InputError(f"{len(text)} categories were given for {batch} images")
        if not self.text_reads_image:
            return text.float().expand(batch, -1, -1)
        if not isinstance(tokens, AdaTokens):
            raise InputError("AdaCLIP makes prompts from the image; take tokens from its own `tokens`")
        names = self.named_by(text)
        if tokens.text is None or tokens.text[0] != names:
            tokens.text = names, self._encode(names, self.text_prompts, tokens.dynamic_text)
        return tokens.text[1]

    # --- images

    def tokens(self, pixels: Tensor) -> AdaTokens:
        """A plain pass, from whose image vector the dynamic prompts are made, and a prompted one."""
        vision = self.backbone.vision
        embedded, grid = vision.embed(pixels, self.config.position_interpolation)
        dynamic_vision = dynamic_text = None
        if self.config.dynamic and (self.vision_prompts or self.text_prompts):
            vector = image_vector(vision, embedded, self.activate)
            dynamic_vision = self.vision_prompts.dynamic_tokens(vector) if self.vision_prompts else None
            dynamic_text = self.text_prompts.dynamic_tokens(vector) if self.text_prompts else None
        prompts = self._rounded(self.vision_prompts(dynamic_vision, len(pixels))) if self.vision_prompts else {}
        cls, local = prompted_vision(vision, embedded, prompts, self.taps, self.activate)
        return AdaTokens(cls, local, grid, dynamic_text=dynamic_text)

    def patch_features(self, tokens: VisionTokens) -> list[Tensor]:
        """For each tap, (B, N, E) unit vectors of the patches."""
        heads = zip(self.taps, self.patch_heads, strict=True)
        return [F.normalize(head(tokens.local[tap][:, 1:].float()), dim=-1) for tap, head in heads]

    def patch_logits(self, features: list[Tensor], text: Tensor) -> Tensor:
        """(taps, B, N, 2) cosines with `image_text`'s vectors divided by the temperature, order normal, abnormal."""
        return torch.stack([tap @ text.transpose(1, 2) for tap in features]) / self.config.temperature

    def cls_vector(self, tokens: VisionTokens) -> Tensor:
        """(B, E) unit vector of the prompted image, before fusion."""
        return F.normalize(self.image_head(self.backbone.vision.project(tokens.cls).float()), dim=-1)

    def _image_logits(self, tokens: VisionTokens, text: Tensor, features: list[Tensor], logits: Tensor) -> Tensor:
        vector, share = self.cls_vector(tokens), self.config.fusion_share
        if self.config.fusion:
            anomaly = logits.mean(dim=0).softmax(dim=-1)[..., 1]  # (B, N)
            fused = semantic_vector(
                features,
                anomaly,
                self.config.clusters,
                clustering=self.config.clustering,
                seed=self.config.seed or 0,
            )
            vector = F.normalize(share * fused + (1 - share) * vector, dim=-1)
        return torch.einsum("be,bce->bc", vector, text) / self.config.temperature

    def image_logits(self, tokens: VisionTokens, text: Tensor) -> Tensor:
        """(B, 2) cosines of the fused image vector divided by the temperature, order normal, abnormal."""
        vectors, features = self.image_text(tokens, text), self.patch_features(tokens)
        return self._image_logits(tokens, vectors, features, self.patch_logits(features, vectors))

    def pixel_maps(self, tokens: VisionTokens, text: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """For each tap, (B, 2, *size): upsampled logits, then softmax."""
        logits = self.patch_logits(self.patch_features(tokens), self.image_text(tokens, text))
        return [upsample(tap, tokens.grid, size).softmax(dim=1) for tap in logits]

    def score(
        self, tokens: VisionTokens, text: Tensor, size: tuple[int, int], output: tuple[int, int] | None = None
    ) -> Scores:
        vectors, features = self.image_text(tokens, text), self.patch_features(tokens)
        logits = self.patch_logits(features, vectors)
        global_score = self._image_logits(tokens, vectors, features, logits).softmax(dim=-1)[:, 1]
        raw = upsample(logits.mean(dim=0), tokens.grid, size).softmax(dim=1)[:, 1]
        at_tower = grid_to_map(raw, size, self.config.sigma)
        final = at_tower if output in (None, size) else grid_to_map(raw, size, self.config.sigma, output)
        local_score = top_share_mean(at_tower, self.config.top_share)
        return Scores(final, joint_score(global_score, local_score, self.config.alpha), global_score, local_score)

    @classmethod
    def from_official(
        cls, content: Mapping[str, Any], backbone: Backbone, settings: Mapping[str, Any] | None = None
    ) -> AdaClip | None:
        """AdaCLIP with what its authors' file holds, run as they run it: with plain GELU and prompts rounded to fp16.

        The file tells depth, length and kinds of the prompts. It does not tell the layers that its projections read:
        give `taps` in `settings` where they are not the published ones.

        Raises:
            CheckpointError: the file does not fit the backbone, the settings or its own kind.
        """
        tensors = our_names(content)
        if tensors is None:
            return None
        facts = {"activation": "gelu", "prompt_half": True, **(settings or {}), **describe(tensors)}
        method = cls(backbone, config_from_dict(AdaClipConfig, facts))
        wanted = {name: tuple(value.shape) for name, value in method.state_dict().items()}
        # the authors save generators of both towers, even where one of them has no prompts
        given = {name: value for name, value in tensors.items() if name in wanted or ".generators." not in name}
        check_tensors(given, wanted, backbone.name)
        method.load_state_dict(given)
        return method.eval()


def upsample(values: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """(B, N, C) on the patch grid -> (B, C, *size), bilinear with aligned corners."""
    square = values.transpose(1, 2).unflatten(-1, grid)  # (B, C, rows, columns)
    return F.interpolate(square, size=size, mode="bilinear", align_corners=True)
