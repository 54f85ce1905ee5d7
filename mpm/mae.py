"""The backbone: a masked autoencoder on windows of evidence layers."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mpm import artefacts, masking
from mpm.encoder import (
    Encoder,
    MAEConfig,
    blocks,
    patchify,
    pick,
    sine_positions,
    unpatchify,
    visible_mean,
)
from mpm.masking import Mask
from mpm.scaling import Scaling
from mpm.study import Study

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "demo": {
        "window": 15,
        "width": 64,
        "depth": 3,
        "heads": 4,
        "decoder_width": 48,
        "decoder_depth": 1,
    },
}


def preset(name: str, layers: int) -> MAEConfig:
    """Return the settings of a named preset ("demo" or "paper") for a number of layers.

    Raises
    ------
    ValueError
        If there is no such preset.
    """
    if name not in PRESETS:
        raise ValueError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
    return MAEConfig(layers=layers, **PRESETS[name])


class MaskedAutoencoder(nn.Module):
    """Encoder of the visible patches, light decoder of all of them.

    Source: He et al. 2022, arXiv:2111.06377; sizes of Daruna et al. 2024, arXiv:2406.12756.
    """

    def __init__(self, config: MAEConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.shrink = nn.Linear(config.width, config.decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.decoder_width))
        places = sine_positions(config.tokens, config.decoder_width)
        self.position = nn.Parameter(nn.functional.pad(places, (0, 0, 1, 0)))  # CLS has none
        self.blocks = blocks(config.decoder_width, config.decoder_depth, config.decoder_heads)
        self.norm = nn.LayerNorm(config.decoder_width)
        self.fill = nn.Linear(config.decoder_width, config.layers * config.patch**2)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(self, values: Tensor, observed: Tensor, mask: Mask) -> Tensor:
        """Reconstruct windows from what is visible of them.

        Parameters
        ----------
        values, observed : Tensor (N, C, H, W)
            As for `Encoder.forward`.
        mask : Mask

        Returns
        -------
        Tensor (N, C, H, W)
            What the network was trained to tell, see `masking.target`.
        """
        size = self.config.patch
        patches, seen = patchify(values, size), patchify(observed, size)
        latent = self.encoder.encode(patches, seen, mask)
        made = self.fill(self.decode(latent, mask.visible))
        if self._lacks_level():
            made = made + self._level(patches, seen, mask)
        return unpatchify(made, size)

    def decode(self, latent: Tensor, visible: Tensor) -> Tensor:
        """Turn encoded visible patches (N, 1 + kept, width) into all (N, L, decoder width)."""
        latent = self.shrink(latent)
        n, width = len(latent), latent.shape[-1]
        # mask tokens everywhere, then what was seen in its place
        tokens = self.mask_token.expand(n, self.config.tokens, width).to(latent.dtype)
        index = visible.unsqueeze(-1).expand(-1, -1, width)
        tokens = tokens.scatter(1, index, latent[:, 1:])
        tokens = torch.cat([latent[:, :1], tokens], dim=1) + self.position
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 1:])

    def loss(self, values: Tensor, observed: Tensor, mask: Mask) -> Tensor:
        """Return the mean squared error over the cells of windows (N, C, H, W) that count: ()."""
        error, count = self.squared_error(values, observed, mask)
        return error / count.clamp(min=1)

    def squared_error(self, values: Tensor, observed: Tensor, mask: Mask) -> tuple[Tensor, Tensor]:
        """Return the sum () of squared errors over cells of windows (N, C, H, W), and their number.

        These are hidden *and* observed cells, or with `loss_on` "all" every cell, visible and
        missing ones (as zeros) included.
        """
        config, size = self.config, self.config.patch
        patches, seen = patchify(values, size), patchify(observed, size)
        patches, seen = self.encoder.attended(patches, seen)
        decoded = self.decode(self.encoder.encode(patches, seen, mask), mask.visible)
        wanted = patches
        if config.wanted != "values":
            wanted = patchify(masking.target(values, observed, config.wanted, size), size)
        if self._lacks_level():
            wanted = wanted - self._level(patches, seen, mask)
        if config.loss_on == "all":
            error = (self.fill(decoded) - wanted).square()
            return error.sum(), torch.full((), error.numel(), device=error.device)
        if mask.veiled.shape[2]:
            apart = mask.hidden(config.tokens, config.layers)
            seen = seen & apart.repeat_interleave(size**2, dim=2)
        else:  # visible patches need no filling
            index = mask.hidden_patches(config.tokens)
            decoded, wanted, seen = (pick(part, index) for part in (decoded, wanted, seen))
        error = (self.fill(decoded) - wanted).where(seen, 0.0)
        return error.square().sum(), seen.sum()

    def _lacks_level(self) -> bool:
        """Say whether the network is asked for values and sees contrasts only."""
        return self.config.inputs == "contrasts" and self.config.wanted == "values"

    def _level(self, patches: Tensor, seen: Tensor, mask: Mask) -> Tensor:
        """Return what a network that sees contrasts only cannot know: (N, 1, C*patch*patch)."""
        level = visible_mean(*self.encoder.shown(patches, seen, mask))
        return level.repeat_interleave(self.config.patch**2, dim=1).unsqueeze(1)


def masked_cells(mask: Mask, config: MAEConfig) -> Tensor:
    """Say which cells are hidden: (N, 1, H, W) bool, or (N, layers, H, W) if layers differ."""
    hidden = mask.hidden(config.tokens, mask.veiled.shape[2] or 1)
    return unpatchify(hidden.repeat_interleave(config.patch**2, dim=2), config.patch)


def draw_mask(n: int, config: MAEConfig, generator: torch.Generator) -> Mask:
    """Draw what is hidden of n windows."""
    return masking.draw(
        n,
        config.tokens,
        generator,
        task=config.task,
        ratio=config.mask_ratio,
        layer_ratio=config.layer_ratio,
        units=config.units,
    )


def build(config: MAEConfig, seed: int) -> MaskedAutoencoder:
    """Make an untrained network whose weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MaskedAutoencoder(config)


def save(
    model: MaskedAutoencoder, folder: Path, *, layers: Sequence[str], scaling: Scaling, facts: dict
) -> None:
    """Save a backbone: weights (safetensors), sizes, layers and facts (JSON), scaling (JSON).

    Parameters
    ----------
    model : MaskedAutoencoder
    folder : Path
        Replaced as a whole.
    layers : sequence of str
        Names of the evidence layers, in order.
    scaling : Scaling
        What its input was standardised with.
    facts : dict
        Seed, study, split and whatever should be known of it later.
    """
    with artefacts.atomic(folder) as fresh:
        fresh.mkdir()
        save_file(
            {k: v.cpu().contiguous() for k, v in model.state_dict().items()},
            fresh / "model.safetensors",
        )
        config = {"config": asdict(model.config), "layers": list(map(str, layers)), "facts": facts}
        artefacts.write_json(fresh / "model.json", config)
        scaling.save(fresh / "scaling.json")


def load(
    folder: Path,
    *,
    layers: Sequence[str] | None = None,
    units: Sequence[str] | None = None,
) -> tuple[MaskedAutoencoder, Scaling, dict]:
    """Load a backbone saved by `save`.

    Parameters
    ----------
    folder : Path
    layers : sequence of str, optional
        The layers of the cube it is meant for.
    units : sequence of str, optional
        Their units.

    Returns
    -------
    model : MaskedAutoencoder
        On the CPU, in evaluation mode.
    scaling : Scaling
    facts : dict

    Raises
    ------
    FileNotFoundError
        If it is missing; says which notebook to run.
    ValueError
        If layers or units differ (naming them), or the files are damaged or do not fit each other.
    """
    place = artefacts.require(Path(folder) / "model.json", "02_mae_pretraining")
    content = read_sizes(place, "layers", "facts")
    if layers is not None and list(layers) != content["layers"]:
        _refuse(folder, content["layers"], list(layers))
    if units is not None:
        _check_units(folder, content, dict(zip(content["layers"], units, strict=True)))
    model = build(content["config"], seed=0)
    load_weights(model, place.with_name("model.safetensors"))
    return model.eval(), Scaling.load(place.with_name("scaling.json")), content["facts"]


def read_sizes(place: Path, *keys: str) -> dict:
    """Read the model.json of a backbone or classifier, its "config" as `MAEConfig`.

    Raises
    ------
    ValueError
        If it is damaged, of another version, or lacks one of the keys; the message names it.
    """
    content = artefacts.read_facts(place, "config", *keys)
    try:
        return content | {"config": MAEConfig(**content["config"])}
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{place} is damaged or of another version of mpm ({error}); make it again"
        ) from error


def load_weights(model: nn.Module, place: Path) -> None:
    """Load the weights of a model from a safetensors file.

    Raises
    ------
    ValueError
        If the file is missing, damaged, of another model, or holds what is no number; the message
        names it.
    """
    try:
        model.load_state_dict(load_file(place))
    except (RuntimeError, OSError, SafetensorError) as error:
        raise ValueError(
            f"{place} is damaged or does not fit the model.json beside it; make it again: {error}"
        ) from error
    for name, weights in model.state_dict().items():
        if not weights.isfinite().all():
            raise ValueError(f"{place}: {name} holds NaN or infinity; make it again")


def _refuse(folder: Path, own: list[str], given: list[str]) -> None:
    lacking = [name for name in own if name not in given]
    extra = [name for name in given if name not in own]
    what = json.dumps({"lacking": lacking, "extra": extra}) if lacking or extra else "another order"
    raise ValueError(f"backbone {folder} was trained on other layers than this cube has: {what}")


def _check_units(folder: Path, content: dict, given: dict[str, str]) -> None:
    own = content["facts"].get("units", given)
    wrong = [
        f"{name} in {given[name]!r}, not {own[name]!r}" for name in own if given[name] != own[name]
    ]
    if wrong:
        raise ValueError(
            f"backbone {folder} was trained on other units than this cube has: {'; '.join(wrong)}; "
            "convert the layers, or correct `units` in the study file and run notebook 01 again"
        )


def backbone_path(study: Study, split: str, fold: int) -> Path:
    """Return where the backbone pretrained on a fold's training cells lies."""
    return study.processed / "backbones" / f"{split}_{fold}"
