"""Weights and scaling of a borrowed backbone, put in the order of a study's own layers."""

from dataclasses import fields, replace

import torch

from mpm import mae
from mpm.scaling import Scaling
from mpm.transfer import Borrowed


def config_of(borrowed: Borrowed) -> mae.MAEConfig:
    """Return the settings of a borrowed backbone for the study's planes."""
    old, places = borrowed.model.config, _places(borrowed)
    new = max(old.units, default=0) + 1  # what it never saw is hidden together
    return replace(
        old,
        layers=len(places),
        ignored=tuple(k for k, place in enumerate(places) if place is None),
        units=tuple(new if place is None else old.units[place] for place in places if old.units),
    )


def _places(borrowed: Borrowed) -> list[int | None]:
    """Return the backbone's position of each plane of the study."""
    known = {name: place for place, name in enumerate(borrowed.scaling.layers)}
    return [known.get(borrowed.used.get(plane, "")) for plane in borrowed.planes]


@torch.no_grad()
def network(borrowed: Borrowed) -> mae.MaskedAutoencoder:
    """Return the backbone for windows of the study's planes, in their order.

    Weights of layers move to their new places; those of ignored planes are 0 and stay out of the
    network's sight in fine-tuning, too. What a missing layer adds to every patch is a constant,
    which goes into the bias.
    """
    old, places = borrowed.model, _places(borrowed)
    model = mae.build(config_of(borrowed), seed=0)
    weights, size = old.state_dict(), old.config.patch**2
    gone = sorted(set(range(old.config.layers)) - set(places))
    gaps = weights["encoder.missing.weight"]
    values = weights["encoder.values.weight"].unflatten(1, (-1, old.config.layers, size))
    weights |= {
        "encoder.values.weight": _moved(values, places, 2).flatten(1),
        "encoder.values.bias": weights["encoder.values.bias"] + gaps[:, gone].sum(dim=1),
        "encoder.missing.weight": _moved(gaps, places, 1),
    }
    for name in ("fill.weight", "fill.bias"):
        whole = weights[name].unflatten(0, (old.config.layers, size))
        weights[name] = _moved(whole, places, 0).flatten(0, 1)
    model.load_state_dict(weights)
    return model.eval()


def _moved(weights: torch.Tensor, places: list[int | None], axis: int) -> torch.Tensor:
    """Return the weights of planes at their new places along an axis, 0 where there was none."""
    index = torch.tensor([place or 0 for place in places])
    shape = [1] * weights.ndim
    shape[axis] = len(places)
    known = torch.tensor([place is not None for place in places]).view(shape)
    return weights.index_select(axis, index).where(known, 0.0)


def scaling_of(borrowed: Borrowed, own: Scaling) -> Scaling:
    """Return the backbone's scaling of the planes that it knows, and the study's own of the others.

    Parameters
    ----------
    borrowed : Borrowed
    own : Scaling
        Fitted on the study's training cells. The result remembers these, so that it is refused
        where they are held out.
    """
    places, rows = _places(borrowed), {}
    for name in (field.name for field in fields(Scaling) if field.name not in ("layers", "seen")):
        known, fitted = getattr(borrowed.scaling, name), getattr(own, name)
        rows[name] = tuple(
            fitted[k] if place is None else known[place] for k, place in enumerate(places)
        )
    return replace(own, **rows)
