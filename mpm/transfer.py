"""A backbone that was pretrained elsewhere, taken over for the layers of another study.

Layers that the study lacks enter the network as missing everywhere. Layers that the backbone never
saw are ignored by it; methods without a backbone see them as usual. The others are scaled as the
backbone's own scaling prescribes, not anew: its weights know what 40 km of crust mean, and a mean
of the new region would tell them otherwise. It is also how a study's second region is scaled. Where
both ways were tried (`data/comparisons/znpb.csv`, "standardised per region") neither was surely
better.

A backbone learns from layers without labels. If the ground that it was pretrained on holds test
cells of the study, it has seen their evidence, though none of their deposits: scores are then those
of a map for ground whose layers were at hand when the network was made.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from mpm import artefacts, mae
from mpm.scaling import Scaling
from mpm.study import Backbone, Study
from mpm.vector_files import nearest

MOST_TIMES = 2.0  # a study's cells may be so many times larger or smaller than the backbone's
LEAST_SHARE = 0.5  # of the backbone's layers, those of classes counted once
CLIPPED = 0.2  # share of a layer's cells beyond the backbone's fences that is worth a note
FILES = ("model.json", "model.safetensors", "scaling.json")


@dataclass(frozen=True)
class Borrowed:
    """A backbone from elsewhere, and which of its planes a study has.

    Attributes
    ----------
    folder : Path
    model : MaskedAutoencoder
        As it was saved.
    scaling : Scaling
        Its own; `scaling.layers` are its planes.
    planes : tuple of str
        Of the study.
    used : dict of str
        Planes of the study that stand for a plane of the backbone: own name to the backbone's.
    """

    folder: Path
    model: mae.MaskedAutoencoder
    scaling: Scaling
    planes: tuple[str, ...]
    used: dict[str, str]

    @property
    def missing(self) -> list[str]:
        """Planes that the backbone learned and the study lacks."""
        return [
            name for name in learned(self.model, self.scaling) if name not in self.used.values()
        ]

    @property
    def ignored(self) -> list[str]:
        """Planes of the study that the backbone never saw."""
        return [name for name in self.planes if name not in self.used]


def learned(model: mae.MaskedAutoencoder, scaling: Scaling) -> list[str]:
    """Return the planes of a backbone but for those that it ignores, being borrowed itself."""
    ignored = model.config.ignored
    return [name for place, name in enumerate(scaling.layers) if place not in ignored]


def borrow(study: Study, cube: xr.Dataset) -> Borrowed:
    """Read the backbone that a study names, if it makes sense for the study's layers.

    Parameters
    ----------
    study : Study
        One with `backbone`.
    cube : Dataset
        Of any of its regions; layers, units and kinds are read.

    Returns
    -------
    Borrowed

    Raises
    ------
    FileNotFoundError
        If the folder or one of its files is missing.
    ValueError
        If a file is damaged, or the backbone does not suit: a layer is unknown, without
        counterpart, or the counterpart of two; units or kinds differ; cells are more than
        `MOST_TIMES` larger or smaller; the study has less than `LEAST_SHARE` of its layers. One
        line a problem.
    """
    spec, folder = _named(study)
    model, scaling, facts = _read(study)
    planes = tuple(cube["layer"].values.tolist())
    names = learned(model, scaling)
    used, problems = _match(spec.layers, names, planes)
    problems += _differences(study, cube, scaling, facts, used) + _cell_sizes(study, facts)
    known = {_layer(name) for name in names}
    found = {_layer(name) for name in used.values()}
    if not problems and len(found) < LEAST_SHARE * len(known):
        problems = [
            f"the study has {len(found)} of its {len(known)} layers, fewer than "
            f"{LEAST_SHARE:.0%}; add {', '.join(sorted(known - found))}, or leave `backbone` out "
            "and pretrain on your own ground"
        ]
    if problems:
        raise ValueError(
            f"{study.path}: backbone {folder} does not suit the study:\n  " + "\n  ".join(problems)
        )
    return Borrowed(folder, model, scaling, planes, used)


def _named(study: Study) -> tuple[Backbone, Path]:
    """Return what a study says of a backbone, and its folder."""
    if study.backbone is None or study.backbone_folder is None:
        raise ValueError(f"{study.path} names no `backbone`; add it, or pretrain one")
    return study.backbone, study.backbone_folder


def _read(study: Study) -> tuple[mae.MaskedAutoencoder, Scaling, dict]:
    _, folder = _named(study)
    lacking = [name for name in FILES if not (folder / name).is_file()]
    if lacking:
        raise FileNotFoundError(
            f"{study.path}: backbone {folder} lacks {', '.join(lacking)}; name the folder of a "
            "backbone as notebook 02 saves it, e.g. processed/demo/backbones/final_0"
        )
    try:
        model, scaling, facts = mae.load(folder)
        same = model.config.layers == len(scaling.layers) and facts["resolution"].values()
        if not same or set(facts["units"]) != set(scaling.layers):
            raise ValueError(f"{folder} holds files of different backbones; copy all three again")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder / 'model.json'} is damaged or of another version of mpm ({error}); make the "
            "backbone again with notebook 02 of its study"
        ) from error
    return model, scaling, facts


def _layer(plane: str) -> str:
    """Return the evidence layer of a plane: "rock" of "rock=shale"."""
    return plane.partition("=")[0]


def _match(
    wanted: dict[str, str | None], known: list[str], planes: tuple[str, ...]
) -> tuple[dict[str, str], list[str]]:
    """Find the counterpart of each of the backbone's planes; returns `Borrowed.used`, problems."""
    names = sorted({*known, *map(_layer, known)})
    problems = [
        f"`layers` names {name!r}, which is no layer of the backbone{nearest(name, names)}; "
        f"it has {', '.join(known)}"
        for name in wanted
        if name not in names
    ]
    used: dict[str, str] = {}
    for name in known:
        plane = _counterpart(wanted, name)
        if plane is None:
            continue
        if plane in used:
            problems.append(f"layer {plane!r} stands for {used[plane]!r} and for {name!r}; map one")
            problems[-1] += " of them to null"
        elif plane in planes:
            used[plane] = name
        else:
            problems.append(_no_such(name, plane, planes))
    return used, problems


def _counterpart(wanted: dict[str, str | None], name: str) -> str | None:
    """Return what a plane of the backbone is called in the study; None if it is missing there."""
    layer, is_class, label = name.partition("=")
    if name in wanted:
        return wanted[name]
    if is_class and layer in wanted:
        return None if wanted[layer] is None else f"{wanted[layer]}={label}"
    return name


def _no_such(name: str, plane: str, planes: tuple[str, ...]) -> str:
    near = nearest(plane, list(planes))
    what = f"the backbone's layer {name!r}"
    if name != plane:
        what += f" is mapped to {plane!r}, which"
    return (
        f"{what} is no layer of the study{near}; write `{name}: <layer of yours>` or, if there is "
        f"none, `{name}: null` under `layers`; the study has {', '.join(planes)}"
    )


def _differences(
    study: Study, cube: xr.Dataset, scaling: Scaling, facts: dict, used: dict[str, str]
) -> list[str]:
    """List the layers whose units or kinds are not those that the backbone learned."""
    parents = {layer.name: layer.of for layer in study.layers if layer.derive}
    problems = []
    for plane, name in used.items():
        own, parent = cube.sel(layer=plane), parents.get(plane)
        kinds = ["continuous", "binary"][scaling.binary[scaling.layers.index(name)]]
        if str(own["kind"].values) != kinds:
            remedy = "derive it in another way" if parent else "read the file as another `kind`"
            problems.append(
                f"layer {plane!r} is {own['kind'].values}, the backbone learned {name!r} as "
                f"{kinds}; {remedy}, or map {name}: null"
            )
        elif str(own["units"].values) != facts["units"][name]:
            remedy = "convert it by `scale` and correct `units`"
            if parent:  # takes neither key
                remedy = f"it is derived from {parent!r}: convert that by `scale`, correct `units`"
            problems.append(
                f"layer {plane!r} is in {str(own['units'].values)!r}, the backbone learned "
                f"{name!r} in {facts['units'][name]!r}; {remedy}, or map {name}: null"
            )
    return problems


def _cell_sizes(study: Study, facts: dict) -> list[str]:
    sizes = facts["resolution"].values()
    return [
        f"region {region!r} has cells of {spec.resolution:g} m, the backbone learned cells of "
        f"{' and '.join(f'{size:g}' for size in sorted(set(sizes)))} m; its windows would show "
        f"ground of another scale, so stay within a factor of {MOST_TIMES:g}"
        for region, spec in study.regions.items()
        if max(max(size / spec.resolution, spec.resolution / size) for size in sizes) > MOST_TIMES
    ]


def facts_of(study: Study, borrowed: Borrowed) -> dict:
    """Return what should be known later of a backbone that was taken over."""
    return {
        "folder": _named(study)[0].folder,
        "sha256": artefacts.sha256(borrowed.folder / "model.safetensors"),
        "used": borrowed.used,
        "missing": borrowed.missing,
        "ignored": borrowed.ignored,
    }


def lines(study: Study, cubes: dict[str, xr.Dataset]) -> list[str]:
    """Say which layers a backbone from elsewhere uses, misses and ignores, and whom it suits ill.

    Parameters
    ----------
    study : Study
    cubes : dict of Dataset
        By region, unscaled.

    Returns
    -------
    list of str
        None if the study pretrains its own.

    Raises
    ------
    FileNotFoundError, ValueError
        As `borrow`.
    """
    if study.backbone is None:
        return []
    borrowed = borrow(study, next(iter(cubes.values())))
    used = [
        plane if plane == name else f"{name} (here {plane})"
        for plane, name in borrowed.used.items()
    ]
    found = [
        f"backbone {study.backbone.folder}, pretrained elsewhere: uses {', '.join(used)}",
        f"missing everywhere for the backbone: {', '.join(borrowed.missing) or 'no layer'}",
        f"ignored by the backbone, seen by other methods: {', '.join(borrowed.ignored) or 'none'}",
    ]
    for region, cube in cubes.items():
        far = {plane: _clipped(cube, borrowed, plane) for plane in borrowed.used}
        listed = [f"{plane} ({share:.0%})" for plane, share in far.items() if share > CLIPPED]
        if listed:
            found.append(
                f"region {region!r}: beyond anything usual where the backbone was pretrained, and "
                f"cut off there, is more than {CLIPPED:.0%} of {', '.join(listed)}"
            )
    return found


def _clipped(cube: xr.Dataset, borrowed: Borrowed, plane: str) -> float:
    """Return the share of a layer's observed cells that lie beyond the backbone's fences."""
    place = borrowed.scaling.layers.index(borrowed.used[plane])
    values = cube["evidence"].sel(layer=plane).values[cube["valid"].values]
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0
    low, high = borrowed.scaling.low[place], borrowed.scaling.high[place]
    return float(((values < low) | (values > high)).mean())
