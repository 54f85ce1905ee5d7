"""What is not wrong with a study, but should give pause before its scores are believed."""

import re
from collections import Counter

import numpy as np
import pandas as pd
import xarray as xr
from scipy.spatial import cKDTree
from scipy.stats import fisher_exact, rankdata

from mpm import align, artefacts, crate, datacube, deposit_numbers, deposits, fetch, labels
from mpm.splits import SplitSettings
from mpm.study import Region, Study

CELLS = 250_000  # of a region's grid; larger ones are looked at on coarser cells
SAMPLE = 5_000  # unlabeled cells that deposits are compared with
ALIKE = 0.95  # correlation from which two layers say the same
TELLING = 0.95  # AUC of a single layer that is too good for geology
SPARSE = 50.0  # % of the study area that a layer should cover
FEWEST = 5  # deposits below which nothing is said of single layers
_SEARCH = re.compile(  # each as a word of its own: "mineralogy" and "broadband" are none
    r"(?:mines?|mining|drill\w*|(?:rail)?roads?|deposits?|occurr\w*|licen[cs]\w*|permits?|assays?"
    r"|prospect(?:s|ing|ors?)?)"
)


def notes(study: Study, *, folds: int = 5, seed: int = 7) -> list[str]:
    """Look for what makes scores wide or too good: gaps, twins, few deposits, telltale layers.

    Cubes of notebook 01 are taken if they are of the files that are there now. Otherwise layers are
    aligned here, on cells large enough for `CELLS` of them to make a region.

    Parameters
    ----------
    study : Study
        One that `align.check` found nothing wrong with.
    folds : int
        Of the block split, unless notebook 02 has kept other settings.
    seed : int
        Draws the cells that deposits are compared with, and deals blocks to folds.

    Returns
    -------
    list of str
        A line a note. What could not be looked at is said too.

    Raises
    ------
    FileNotFoundError, ValueError
        If the study names a backbone that does not suit it, as `transfer.borrow`.
    """
    cubes, how = {}, []
    for region in study.regions:
        cubes[region], text = _cube(study, region)
        how += [text] if text else []
    found = [*_licences(study), *_gaps(cubes), *_twins(cubes, seed), *_names(study)]
    for target in study.targets:
        found += _spacing(study, target)
        found += _telltale(cubes, target, seed)
    settings = _settings(study, folds, seed)
    found += deposit_numbers.notes(cubes, list(study.targets), settings)
    if study.backbone is not None:
        from mpm import transfer  # imports torch, which other studies need not wait for

        found += transfer.lines(study, cubes)
    return found + how


def _settings(study: Study, folds: int, seed: int) -> SplitSettings:
    """Return how notebook 02 divided the cells, or would by default."""
    place = study.processed / "splits.json"
    if place.exists():
        try:
            return SplitSettings(**artefacts.read_facts(place, "split")["split"])
        except (ValueError, TypeError):  # damaged; the notebooks will say so
            pass
    return SplitSettings(folds=folds, block_km=0.0, seed=seed)


# Where the values come from


def _cube(study: Study, region: str) -> tuple[xr.Dataset, str]:
    """Return a region's cube with labels, and how its cells differ from the study's."""
    if _is_current(study, region):
        return labels.add_labels(datacube.read(datacube.path(study, region)), study)[0], ""
    coarse = _coarser(study.regions[region])
    text = ""
    if coarse.resolution != study.regions[region].resolution:
        study = study.model_copy(update={"regions": study.regions | {region: coarse}})
        text = (
            f"region {region!r} was looked at on cells of {coarse.resolution / 1000:g} km; after "
            "notebook 01 this command looks at its own cells"
        )
    return labels.add_labels(datacube.build(study, region), study)[0], text


def _is_current(study: Study, region: str) -> bool:
    """Whether notebook 01 has made a cube of these layers, files and cells."""
    if not datacube.path(study, region).exists():
        return False
    try:
        cube = datacube.read(datacube.path(study, region), chunks=datacube.STORED)
    except ValueError:  # damaged; notebook 01 will say so
        return False
    cells = align.grid(study.regions[region])
    if not (cube["x"].equals(cells["x"]) and cube["y"].equals(cells["y"])):
        return False
    now = [align.coordinates(study, layer, region, cells) for layer in study.layers]
    files = {pair for facts in now for pair in zip(facts["layer"], facts["checksum"], strict=True)}
    return files == set(zip(cube["layer"].values, cube["checksum"].values, strict=True))


def _coarser(region: Region) -> Region:
    """Return a region with cells so much larger that `CELLS` or fewer fill it."""
    rows, columns = region.shape
    times = int(np.ceil((rows * columns / CELLS) ** 0.5))
    side = region.resolution * times
    west, _, _, north = region.bounds
    bounds = (west, north - rows // times * side, west + columns // times * side, north)
    return region.model_copy(update={"resolution": side, "bounds": bounds}) if times > 1 else region


# What is looked at


def _licences(study: Study) -> list[str]:
    files = [crate.inside(path, study) for path in fetch.input_files(study)]
    counts = Counter(" ".join(text.split()) for text in crate.licences(study, files).values())
    listed = [f"{text} ({n} file{'' if n == 1 else 's'})" for text, n in counts.most_common()]
    return [f"licences: {'; '.join(listed)}"]


def _gaps(cubes: dict[str, xr.Dataset]) -> list[str]:
    table = datacube.coverage(cubes)
    sparse = table[100 - table["missing"] < SPARSE]
    return [
        f"region {region!r}: {', '.join(part['layer'])} cover{'s' if len(part) == 1 else ''} less "
        f"than {SPARSE:g} % of the valid cells; gaps are masked, not filled"
        for region, part in sparse.groupby("region", sort=False)
    ]


def _twins(cubes: dict[str, xr.Dataset], seed: int) -> list[str]:
    drawn = datacube.sample(cubes, cells=SAMPLE, seed=seed)
    first = next(iter(cubes.values()))
    drawn = drawn.loc[:, (first["kind"] == "continuous").values]
    found = drawn.corr(min_periods=100).abs().to_numpy()
    pairs = np.argwhere(np.triu(found > ALIKE, k=1))
    if not len(pairs):
        return []
    names = drawn.columns
    listed = [f"{names[i]} and {names[j]} ({found[i, j]:.3f})" for i, j in pairs[:5]]
    more = f" and {len(pairs) - 5} more pairs" if len(pairs) > 5 else ""
    return [
        f"layers that say nearly the same (|r| > {ALIKE:g}): {', '.join(listed)}{more}; their "
        "importance is shared between them, so leave one out if it is to be read"
    ]


def _names(study: Study) -> list[str]:
    named = [
        layer.name for layer in study.layers if any(map(_SEARCH.fullmatch, _words(layer.name)))
    ]
    if not named:
        return []
    return [f"{', '.join(named)}: by name, where people looked or mined; if so, leave it out"]


def _words(name: str) -> list[str]:
    """Split a name at anything but letters and before capitals: MineRoads_2 to mine, roads."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def _spacing(study: Study, target: str) -> list[str]:
    found = []
    for region, spec in study.regions.items():
        known = study.target(target).of(deposits.read_deposits(study, region, align.grid(spec)))
        places = known.drop_duplicates("deposit")[["x", "y"]].to_numpy()
        if len(places) < 3:
            continue
        away = np.median(cKDTree(places).query(places, k=2)[0][:, 1])
        if spec.resolution > away / 3:
            found.append(
                f"{target}, region {region!r}: half of the deposits lie within {away / 1000:.3g} "
                f"km of another, cells are {spec.resolution / 1000:g} km; neighbours share cells "
                "and windows, so there is less to learn from than their number says"
            )
    return found


def _telltale(cubes: dict[str, xr.Dataset], target: str, seed: int) -> list[str]:
    """Compare one cell a deposit with unlabeled ones, a layer at a time."""
    at, elsewhere = _pairs(cubes, target, seed)
    if len(at) < FEWEST or elsewhere.empty:
        return [f"not looked at: which single layers tell {target}, with {len(at)} deposits"]
    found = []
    for name in at:
        one, other = at[name].dropna(), elsewhere[name].dropna()
        score = _auc(one.to_numpy(), other.to_numpy()) if len(one) >= FEWEST else 0.5
        if max(score, 1 - score) > TELLING and len(other):
            found.append(
                f"{target}: layer {name!r} alone tells deposits from other ground (AUC "
                f"{max(score, 1 - score):.2f}); does it know where people looked?"
            )
        gaps = [[len(one), len(at) - len(one)], [len(other), len(elsewhere) - len(other)]]
        apart = gaps[0][0] / len(at) - gaps[1][0] / len(elsewhere)
        if abs(apart) > 0.2 and fisher_exact(gaps).pvalue < 0.001:
            found.append(
                f"{target}: layer {name!r} is observed at {100 * gaps[0][0] / len(at):.0f} % of "
                f"deposits and in {100 * gaps[1][0] / len(elsewhere):.0f} % of other cells; a "
                "method may learn where was surveyed"
            )
    return found


def _pairs(
    cubes: dict[str, xr.Dataset], target: str, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the evidence (cells, layers) at deposits and in a sample of unlabeled cells."""
    rng, at, elsewhere = np.random.default_rng(seed), [], []
    for cube in cubes.values():
        free = np.flatnonzero((cube["valid"] & ~cube[target]).values)
        drawn = np.sort(rng.choice(free, min(len(free), SAMPLE), replace=False))
        flat = cube["evidence"].values.reshape(cube.sizes["layer"], -1)
        names = cube["layer"].values
        at.append(pd.DataFrame(flat[:, _deposit_cells(cube, target)].T, columns=names))
        elsewhere.append(pd.DataFrame(flat[:, drawn].T, columns=names))
    return pd.concat(at, ignore_index=True), pd.concat(elsewhere, ignore_index=True)


def _deposit_cells(cube: xr.Dataset, target: str) -> np.ndarray:
    """Return one valid cell of each deposit, the middle one in reading order."""
    number = cube[f"{target}_deposit"].where(cube["valid"], -1).values.astype(int).ravel()
    cells = np.flatnonzero(number >= 0)
    groups = pd.Series(cells).groupby(number[cells])
    return groups.apply(lambda own: own.iloc[len(own) // 2]).to_numpy(dtype=int)


def _auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return the chance that a positive value is above a negative one, ties counting half."""
    ranks = rankdata(np.concatenate([positive, negative]))[: len(positive)].sum()
    n = len(positive)
    return float((ranks - n * (n + 1) / 2) / (n * len(negative))) if len(negative) else 0.5
