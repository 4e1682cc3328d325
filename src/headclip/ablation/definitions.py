"""The ablations: what each one varies, as data. Layers are written as the papers count them, for towers of 24 vision
and 12 text layers, and scaled to the tower at hand when a plan is made (`headclip.ablation.layers`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from headclip.errors import InputError

Layout = Literal["datasets", "domains", "variants"]


@dataclass(frozen=True)
class Variant:
    """One row of an ablation.

    settings: of the method. train: fields of `TrainConfig`. axis: what is varied here, where an ablation varies
    several things one at a time. series and value: which curve of the figure, and where on it (the label where
    value is None). published: how `headclip.evaluation.published` calls this row, method and variant, if a paper
    printed it.
    """

    label: str
    method: str = "headclip"
    settings: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    axis: str = ""
    series: str = ""
    value: float | str | None = None
    published: tuple[str, str] | None = None

    @property
    def at(self) -> float | str:
        """Its place on the axis."""
        return self.label if self.value is None else self.value


@dataclass(frozen=True)
class Ablation:
    """One ablation.

    table: where a paper prints it. layout: rows are datasets times variants ("datasets"), variants with mAD by domain
    ("domains"), or variants with every metric averaged over the datasets ("variants"). levels: the metrics that it is
    about. sources: (source, table) pairs of the published figures. ratio: also draw every variant over the joint
    score ratio. remark: what a reader of the table has to know. whole: where variants were left out, all of them.
    """

    name: str
    title: str
    table: str
    layout: Layout
    variants: tuple[Variant, ...]
    levels: tuple[str, ...] = ("image", "pixel")
    sources: tuple[tuple[str, str], ...] = ()
    ratio: bool = False
    remark: str = ""
    whole: tuple[Variant, ...] = ()

    @property
    def every_variant(self) -> tuple[Variant, ...]:
        """Also those that were left out, in order."""
        return self.whole or self.variants

    @property
    def axes(self) -> list[str]:
        """What is varied, in order."""
        return list(dict.fromkeys(variant.axis for variant in self.variants))


NO_JAS = {"alpha": 0.0}
ON, OFF = "with LHW", "without LHW"
PAPER = {True: ("HeadCLIP", "with LHW, without JAS"), False: ("HeadCLIP", "without LHW and JAS")}


def _lhw() -> Ablation:
    variants = tuple(
        Variant(
            ON if on else OFF,
            settings={**NO_JAS, "head_weights": on},
            axis="learnable head weights",
            published=PAPER[on],
        )
        for on in (False, True)
    )
    sources = tuple(("headclip", table) for table in "456")
    remark = "Without the joint anomaly score: the image score is that of the class token."
    return Ablation("lhw", "Learnable head weights", "Tables 4-6", "datasets", variants, sources=sources, remark=remark)


TABLE_7 = ((6, 12, 18, 24), (12, 18, 24), (18, 24), (24,), (18,), (12,), (6,))


def _layers() -> Ablation:
    variants = []
    for taps in TABLE_7:
        name = ", ".join(map(str, taps))
        for on in (False, True):
            settings = {**NO_JAS, "head_weights": on, "aggregation": "taps", "taps": taps, "csa_layers": (6, 24)}
            state = ON if on else OFF
            printed = ("HeadCLIP", f"taps {name}, {state}, without JAS")
            variants.append(
                Variant(
                    f"{name}, {state}", settings=settings, axis="layers", series=state, value=name, published=printed
                )
            )
    for on in (False, True):
        state = ON if on else OFF
        settings = {**NO_JAS, "head_weights": on}
        variants.append(
            Variant(
                f"5-19 (default), {state}",
                settings=settings,
                axis="layers",
                series=state,
                value="5-19 (default)",
                published=PAPER[on],
            )
        )
    remark = (
        "Layers are named as in the paper, for a tower of 24; in towers of another depth the same shares of the depth. "
        "The paper's columns stand in their true order, which is not that of its header: industrial image, medical "
        "image, industrial pixel, medical pixel (see docs/paper.md). Without the joint anomaly score. The last two "
        "rows are the paper's Table 9."
    )
    sources = (("headclip", "7"), ("headclip", "9"))
    title = "Layers of the local path, with and without head weights"
    return Ablation("layers", title, "Table 7", "domains", tuple(variants), sources=sources, remark=remark)


def _init() -> Ablation:
    values: tuple[tuple[str, float | str], ...] = (("Gaussian", "gaussian"), ("0.0", 0.0), ("0.5", 0.5), ("1.0", 1.0))
    variants = tuple(
        Variant(
            name,
            settings={"head_init": value},
            axis="first value of the head weights",
            published=("HeadCLIP", f"head weights start {'' if value == 'gaussian' else 'at '}{name}"),
        )
        for name, value in values
    )
    title = "First value of the head weights"
    return Ablation("init", title, "Table 8", "domains", variants, ("pixel",), (("headclip", "8"),))


def _modules() -> Ablation:
    rows = (
        ("LHW and JAS", True, True, "with LHW and JAS"),
        ("LHW", True, False, "with LHW, without JAS"),
        ("neither", False, False, "without LHW and JAS"),
        ("JAS", False, True, None),
    )
    variants = tuple(
        Variant(
            label,
            settings={"head_weights": lhw, **({} if jas else NO_JAS)},
            axis="modules",
            published=None if printed is None else ("HeadCLIP", printed),
        )
        for label, lhw, jas, printed in rows
    )
    remark = "The row of JAS alone is not in the paper. JAS does not touch the map, so pixel figures come in pairs."
    title = "Head weights (LHW) and joint anomaly score (JAS)"
    return Ablation("modules", title, "Table 9", "domains", variants, sources=(("headclip", "9"),), remark=remark)


RATIOS = tuple(step / 10 for step in range(11))
SHARES = (0.001, 0.005, 0.01, 0.03, 0.05, 0.1)


def _jas() -> Ablation:
    ratio = [
        Variant(f"alpha {alpha:g}", settings={"alpha": alpha}, axis="joint score ratio", series="HeadCLIP", value=alpha)
        for alpha in RATIOS
    ]
    share = [
        Variant(
            f"top {100 * top:g} %",
            settings={"top_share": top},
            axis="top-k share, in percent",
            series="HeadCLIP",
            value=100 * top,
        )
        for top in SHARES
    ]
    remark = (
        "One trained model a seed and one pass over the images: ratios follow from the two parts of the score. "
        "`headclip ablate methods` draws the same curve for every method. The share is varied at the default ratio."
    )
    title = "Joint anomaly score: the ratio and the top-k share"
    return Ablation("jas", title, "Figure 4", "variants", (*ratio, *share), ("image",), remark=remark)


def _attention() -> Ablation:
    names = {"vv": "value-value", "qq": "query-query", "kk": "key-key"}
    variants = tuple(
        Variant(name, "anomalyclip", {"similarity": kind}, axis="self-attention of the local path")
        for kind, name in names.items()
    )
    title = "Self-attention of the local path"
    return Ablation("attention", title, "AnomalyCLIP's comparison of V-V, Q-Q and K-K", "variants", variants)


CONTEXTS = (4, 8, 12, 16)
DEPTHS = (1, 3, 6, 9, 12)


def _prompts() -> Ablation:
    flat = {"deep_layers": ()}
    aware = {"words": ("{}.", "damaged {}.")}
    modules = [
        Variant("base: CLIP", "clip"),
        Variant("T1: v-v attention", "clip", {"csa_layers": (6, 24)}),
        Variant("T2: learnt object-agnostic prompts", "anomalyclip", flat),
        Variant("T3: deep tokens", "anomalyclip"),
        Variant("T4: maps of four layers", "anomalyclip", {"preset": "multi"}),
    ]
    words = [Variant("object-agnostic", "anomalyclip"), Variant("class-aware", "anomalyclip", aware)]
    context = [
        Variant(f"{count} context tokens", "anomalyclip", {"n_context": count}, value=count) for count in CONTEXTS
    ]
    depth = [
        Variant(f"depth {last}", "anomalyclip", {"deep_layers": tuple(range(2, last + 1))}, value=last)
        for last in DEPTHS
    ]
    groups = {"modules": modules, "words": words, "context length": context, "depth of the deep tokens": depth}
    variants = tuple(_on(axis, variant) for axis, group in groups.items() for variant in group)
    remark = (
        "Rows of the modules build on each other. Class-aware prompts end in the category that each image shows, the "
        "others in `object.`; depth counts text layers of 12, of which the first has no deep tokens (depth 1: none). "
        "Settings that come out equal in a shallower tower are trained once and share their figures."
    )
    title = "Prompts of AnomalyCLIP"
    return Ablation("prompts", title, "AnomalyCLIP's modules T1-T4", "variants", variants, remark=remark)


def _aggregation() -> Ablation:
    a1 = [
        Variant("residual (default)"),
        Variant("sum", settings={"aggregation": "sum"}),
        Variant("a map for each layer", settings={"aggregation": "layers"}),
        Variant(
            "maps of four layers", settings={"aggregation": "taps", "taps": (6, 12, 18, 24), "csa_layers": (6, 24)}
        ),
    ]
    a2 = [
        Variant("losses added (default)", settings={"aggregation": "layers"}),
        Variant("losses averaged", settings={"aggregation": "layers"}, train={"tap_mean": True}),
    ]
    a3 = [
        Variant("5-19, counted from 1 (default)"),
        Variant("6-20, counted from 0", settings={"csa_layers": (6, 20)}),
        Variant("6-24, nineteen layers", settings={"csa_layers": (6, 24)}),
    ]
    a4 = [Variant("ends at 19 (default)"), Variant("goes on to 24", settings={"csa_layers": (5, 24)})]
    groups = {
        "A1: aggregation": a1,
        "A2: losses of several maps (a map for each layer)": a2,
        "A3: which layers": a3,
        "A4: after layer 19": a4,
    }
    variants = tuple(_on(axis, variant) for axis, group in groups.items() for variant in group)
    remark = "Readings A1 to A4 of docs/paper.md. The paper prints no figures for them."
    title = "Readings of HeadCLIP's local path"
    return Ablation("aggregation", title, "equations 6 and 11", "variants", variants, remark=remark)


def _methods() -> Ablation:
    from headclip.methods import list_methods
    from headclip.methods.titles import TITLES

    known = list_methods()
    names = [name for name in TITLES if name in known] + [name for name in known if name not in TITLES]
    variants = tuple(
        Variant(TITLES.get(name, name), name, axis="method", published=(TITLES.get(name, name), "")) for name in names
    )
    sources = (("headclip", "1"), ("headclip", "2"), ("headclip", "3"), ("anomalyclip", "1"), ("anomalyclip", "2"))
    remark = (
        "Image scores are each method's own; the curves over the ratio give every method the joint score. Methods "
        "without training have no spread. The published AnomalyCLIP of the HeadCLIP paper reads four layers and is "
        "weaker than that of its own paper."
    )
    title = "Every method"
    return Ablation("methods", title, "Tables 1-3", "datasets", variants, sources=sources, ratio=True, remark=remark)


def _on(axis: str, variant: Variant) -> Variant:
    return replace(variant, axis=axis)


_BUILDERS = {
    "lhw": _lhw,
    "layers": _layers,
    "init": _init,
    "modules": _modules,
    "jas": _jas,
    "attention": _attention,
    "prompts": _prompts,
    "aggregation": _aggregation,
    "methods": _methods,
}


def list_ablations() -> list[str]:
    """Their names, in the order of the paper."""
    return list(_BUILDERS)


def find_ablation(name: str, only: Sequence[str] = ()) -> Ablation:
    """An ablation by name.

    Args:
        only: labels, axes, series or methods; what matches none of them is left out, and kept in `whole`.

    Raises:
        InputError: unknown name, or nothing that `only` could mean; the message lists what there is.
    """
    if name not in _BUILDERS:
        raise InputError(f"unknown ablation '{name}'; choose one of {', '.join(_BUILDERS)}")
    found = _BUILDERS[name]()
    if not only:
        return found
    return _limited(found, only)


def _limited(ablation: Ablation, only: Sequence[str]) -> Ablation:
    def names(variant: Variant) -> set[str]:
        return {variant.label, variant.axis, variant.series, variant.method} - {""}

    for wanted in only:
        if not any(wanted in names(variant) for variant in ablation.variants):
            labels = ", ".join(f"'{variant.label}'" for variant in ablation.variants)
            raise InputError(f"--only '{wanted}': nothing of {ablation.name} is called so; it has {labels}")
    kept = tuple(variant for variant in ablation.variants if names(variant) & set(only))
    return replace(ablation, variants=kept, whole=ablation.variants)
