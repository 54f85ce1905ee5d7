"""Ways to make a backbone that are compared: pretext tasks, inputs, sampling of windows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mpm import mae


@dataclass(frozen=True)
class Variant:
    """One way to make a backbone, told by what differs from the preset.

    Attributes
    ----------
    name : str
    config : dict
        Fields of `mae.MAEConfig`.
    settings : dict
        Fields of `training.PretrainSettings`.
    sees : {"network", "cell", "statistics"}
        What the probe is given: tokens of the network, or for comparison the layers of the cell
        itself, or these with mean and spread over the window.
    units : {"layer", "group"}
        What is hidden together, where the task hides layers.
    pretrained : bool
        False: random weights.
    per_region : bool
        Whether each region is standardised by itself; one without training cells by all of its
        cells, which takes no label.
    balanced : bool
        Whether regions give equal numbers of windows. Where those that it learns from lie in one
        region, there is nothing to balance.
    transductive : bool
        Whether it learns from all windows of all regions, those of the ground that is tested too,
        though from no label. That is another question than whether features carry to ground that
        nobody has mapped, and only asked where a whole region is tested.
    aligned : bool
        Whether the probe standardises features region by region, likewise.
    """

    name: str
    config: dict = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    sees: Literal["network", "cell", "statistics"] = "network"
    units: Literal["layer", "group"] = "layer"
    pretrained: bool = True
    per_region: bool = False
    balanced: bool = False
    transductive: bool = False
    aligned: bool = False


def _masked(name: str, **config: Any) -> Variant:
    return Variant(name, config)


VARIANTS = (
    Variant("the cell alone", sees="cell", pretrained=False),
    Variant("cell and window statistics", sees="statistics", pretrained=False),
    Variant("random network", pretrained=False),
    Variant("patches masked"),
    _masked("layers hidden", task="layers"),
    Variant("groups hidden", {"task": "layers"}, units="group"),
    _masked("patches and layers", task="both"),
    _masked("patches and layers at 0.5", task="both", mask_ratio=0.5),
    _masked("patches of each layer apart", task="apart"),
    Variant("patches of each group apart", {"task": "apart"}, units="group"),
    _masked("mask ratio 0.5", mask_ratio=0.5),
    _masked("mask ratio 0.9", mask_ratio=0.9),
    _masked("mask ratio 0.95", mask_ratio=0.95),
    Variant("five times the steps", settings={"steps": 2000}),
    Variant("ratio 0.5 and five times the steps", {"mask_ratio": 0.5}, {"steps": 2000}),
    _masked("loss on all cells", loss_on="all"),
    _masked("window of 9 cells", window=9),
    _masked("window of 21 cells", window=21),
    _masked("patches of 5 cells", patch=5),
    _masked("normalised targets", wanted="normalised"),
    _masked("high-pass targets", wanted="high_pass"),
    _masked("contrasts alone", inputs="contrasts"),
    _masked("values and contrasts", inputs="both"),
    _masked("patches and layers with contrasts", inputs="both", task="both"),
    Variant("standardised per region", per_region=True),
    Variant("features aligned", aligned=True),
    Variant("regions balanced", balanced=True),
    Variant("windows of the tested region too", balanced=True, transductive=True),
)


def choose(names: Sequence[str], regions: int) -> tuple[Variant, ...]:
    """Return variants by name, all by default, without those for several regions if there is one.

    Raises
    ------
    ValueError
        If there is none of a name.
    """
    known = {variant.name: variant for variant in VARIANTS}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no variant is called {unknown[0]!r}; there are {', '.join(known)}")
    chosen = [known[name] for name in names or known]
    several = [v for v in chosen if v.per_region or v.balanced or v.aligned]
    return tuple(v for v in chosen if regions > 1 or v not in several)


def asked(variant: Variant, split: str) -> bool:
    """Say whether a variant differs from others under a split, or is the same under another name.

    Under `region` all that is learned from lies in one region if there are two, so that nothing is
    to be balanced; unless windows of the tested one are learned from, which is asked there alone.
    """
    return variant.transductive == (split == "region") if variant.balanced else True


def widest_window(preset: str) -> int:
    """Return the widest window (cells) of all variants: no other reaches over its dead zone."""
    own = mae.preset(preset, layers=1).window
    return max(own, *(variant.config.get("window", own) for variant in VARIANTS))
