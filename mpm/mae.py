"""The backbone: a masked autoencoder on windows of evidence layers."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from mpm import artefacts, masking
from mpm.masking import Mask
from mpm.scaling import Scaling
from mpm.study import Study


@dataclass(frozen=True)
class MAEConfig:
    """Size of the network and of what it sees; the defaults are the paper's.

    Source: Daruna et al. 2024, arXiv:2406.12756.
    """

    layers: int = 14  # evidence layers
    window: int = 33  # cells along one side, odd so that it has a centre
    patch: int = 3  # cells along one side of a patch; must divide the window
    width: int = 256  # embedding size of the encoder
    depth: int = 6
    heads: int = 8
    decoder_width: int = 128
    decoder_depth: int = 2
    decoder_heads: int = 4
    mask_ratio: float = 0.75  # share of patches to hide
    task: str = "patches"  # what is hidden, see `masking.draw`
    layer_ratio: float = 0.5  # share of layers to hide, where the task hides layers
    units: tuple[int, ...] = ()  # planes that are hidden together, of `masking.units`
    wanted: str = "values"  # what is told of it, see `masking.target`
    loss_on: str = "hidden"  # cells in the loss: "hidden", or "all" as in the released code
    inputs: str = "values"  # "values", "contrasts" (less the window's visible mean), or "both"

    def __post_init__(self) -> None:
        object.__setattr__(self, "units", tuple(self.units))  # a list where read from JSON
        if self.window % 2 == 0 or self.window % self.patch:
            raise ValueError(
                f"window {self.window} must be odd and a multiple of patch {self.patch}"
            )
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio {self.mask_ratio} must lie between 0 and 1")
        known = {
            "task": masking.TASKS,
            "wanted": masking.WANTED,
            "loss_on": ("hidden", "all"),
            "inputs": ("values", "contrasts", "both"),
        }
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} {getattr(self, name)!r} is none of {', '.join(values)}")
        if self.task != "patches" and len(self.units) != self.layers:
            raise ValueError(
                f"task {self.task!r} needs a unit for each of the {self.layers} layers, as of "
                f"`masking.units`; there are {len(self.units)}"
            )

    @property
    def tokens(self) -> int:
        """Patches in a window."""
        return (self.window // self.patch) ** 2


PRESETS = {
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


def patchify(windows: Tensor, size: int) -> Tensor:
    """Cut square windows into flat tokens: (N, C, H, W) -> (N, L, C*size*size).

    Source: He et al. 2022, arXiv:2111.06377, section 3; here for any number of layers.
    """
    n, c, h, w = windows.shape
    if h % size or w % size:
        raise ValueError(f"window {h}x{w} is not a multiple of patch size {size}")
    tiles = windows.unfold(2, size, size).unfold(3, size, size)  # (N, C, rows, cols, size, size)
    return tiles.permute(0, 2, 3, 1, 4, 5).reshape(n, -1, c * size * size)


def unpatchify(tokens: Tensor, size: int) -> Tensor:
    """Undo `patchify`: (N, L, C*size*size) -> (N, C, H, W)."""
    n, length, flat = tokens.shape
    side = round(length**0.5)
    tiles = tokens.reshape(n, side, side, flat // size**2, size, size)
    return tiles.permute(0, 3, 1, 4, 2, 5).reshape(n, -1, side * size, side * size)


def sine_positions(tokens: int, width: int) -> Tensor:
    """Return sines and cosines of each patch's row and column: (1, tokens, width).

    The learned positions start from these: from small noise a short training never learns where
    patches lie, and fills windows with their mean.

    Source: He et al. 2022, arXiv:2111.06377, appendix A.1 (there they stay fixed).
    """
    if width % 4:
        raise ValueError(
            f"width {width} must be a multiple of 4, for the sines and cosines of row and column"
        )
    side = round(tokens**0.5)
    rate = 1 / 10000 ** (torch.arange(width // 4) / (width / 4))
    row, col = torch.arange(side).repeat_interleave(side), torch.arange(side).repeat(side)
    angles = [place[:, None] * rate for place in (row, col)]
    return torch.cat([part for a in angles for part in (a.sin(), a.cos())], dim=1)[None]


class Encoder(nn.Module):
    """Vision Transformer on the visible patches of a window, with a CLS token.

    A missing cell enters as the layer's training mean, and the share of each layer that is missing
    in a patch is embedded beside the values, so that the network can tell "average" from "unknown".
    """

    def __init__(self, config: MAEConfig):
        super().__init__()
        self.config = config
        channels = config.layers * (2 if config.inputs == "both" else 1)
        self.values = nn.Linear(channels * config.patch**2, config.width)
        self.missing = nn.Linear(config.layers, config.width, bias=False)
        self.position = nn.Parameter(sine_positions(config.tokens, config.width))
        self.cls = nn.Parameter(torch.zeros(1, 1, config.width))
        self.blocks = _blocks(config.width, config.depth, config.heads)
        self.norm = nn.LayerNorm(config.width)
        nn.init.trunc_normal_(self.cls, std=0.02)
        nn.init.zeros_(self.missing.weight)

    def forward(self, values: Tensor, observed: Tensor, mask: Mask | None = None) -> Tensor:
        """Encode windows.

        Parameters
        ----------
        values : Tensor (N, C, H, W)
            Standardised evidence, 0 where missing.
        observed : Tensor (N, C, H, W)
            bool.
        mask : Mask, optional
            What is hidden; nothing by default.

        Returns
        -------
        Tensor (N, 1 + kept, width)
            CLS first.
        """
        size = self.config.patch
        return self.encode(patchify(values, size), patchify(observed, size), mask)

    def encode(self, patches: Tensor, seen: Tensor, mask: Mask | None = None) -> Tensor:
        """Encode windows that are cut into patches already: (N, L, C*patch*patch), as `forward`."""
        position = self.position.expand(len(patches), -1, -1)
        patches, seen = self.shown(patches, seen, mask)
        if mask is not None:
            position = _pick(position, mask.visible)
        gaps = 1 - seen.to(patches.dtype).mean(dim=3)  # (N, kept, C), share of missing cells
        tokens = self.values(self._inputs(patches, seen)) + position + self.missing(gaps)
        tokens = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def shown(self, patches: Tensor, seen: Tensor, mask: Mask | None) -> tuple[Tensor, Tensor]:
        """Return what a mask leaves of patches: values, and (N, kept, C, patch*patch) observed."""
        if mask is not None:  # hidden patches cost nothing
            patches, seen = _pick(patches, mask.visible), _pick(seen, mask.visible)
        seen = seen.unflatten(2, (self.config.layers, -1))
        if mask is not None and mask.veiled.shape[2]:  # a hidden layer is a missing one
            seen = seen & ~mask.veiled.unsqueeze(3)
            patches = patches.where(seen.flatten(2), 0.0)
        return patches, seen

    def _inputs(self, patches: Tensor, seen: Tensor) -> Tensor:
        if self.config.inputs == "values":
            return patches
        level = visible_mean(patches, seen)[:, None, :, None]
        contrasts = (patches.unflatten(2, (self.config.layers, -1)) - level).where(seen, 0.0)
        if self.config.inputs == "contrasts":
            return contrasts.flatten(2)
        return torch.cat([patches, contrasts.flatten(2)], dim=2)


def visible_mean(patches: Tensor, seen: Tensor) -> Tensor:
    """Return the mean of each layer over a window's visible, observed cells: (N, C).

    Parameters
    ----------
    patches : Tensor (N, kept, C*patch*patch)
        0 where missing or hidden.
    seen : Tensor (N, kept, C, patch*patch)
        bool.
    """
    total = patches.unflatten(2, seen.shape[2:]).sum(dim=(1, 3))
    return total / seen.sum(dim=(1, 3)).clamp(min=1)


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
        self.blocks = _blocks(config.decoder_width, config.decoder_depth, config.decoder_heads)
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
        level = self._level(patches, seen, mask)
        return unpatchify(self.fill(self.decode(latent, mask.visible)) + level, size)

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
        """Return the mean squared error over the cells that count."""
        error, count = self.squared_error(values, observed, mask)
        return error / count.clamp(min=1)

    def squared_error(self, values: Tensor, observed: Tensor, mask: Mask) -> tuple[Tensor, Tensor]:
        """Return the sum of squared errors over the cells that count, and their number.

        These are hidden *and* observed cells, or with `loss_on` "all" every cell, visible and
        missing ones (as zeros) included.
        """
        config, size = self.config, self.config.patch
        patches, seen = patchify(values, size), patchify(observed, size)
        decoded = self.decode(self.encoder.encode(patches, seen, mask), mask.visible)
        wanted = patches
        if config.wanted != "values":
            wanted = patchify(masking.target(values, observed, config.wanted, size), size)
        wanted = wanted - self._level(patches, seen, mask)
        if config.loss_on == "all":
            error = (self.fill(decoded) - wanted).square()
            return error.sum(), torch.full((), error.numel(), device=error.device)
        if mask.veiled.shape[2]:
            apart = mask.hidden(config.tokens, config.layers)
            seen = seen & apart.repeat_interleave(size**2, dim=2)
        else:  # visible patches need no filling
            hidden = mask.hidden(config.tokens, 1)[..., 0]
            index = hidden.nonzero()[:, 1].view(len(values), -1)
            decoded, wanted, seen = (_pick(part, index) for part in (decoded, wanted, seen))
        error = (self.fill(decoded) - wanted).where(seen, 0.0)
        return error.square().sum(), seen.sum()

    def _level(self, patches: Tensor, seen: Tensor, mask: Mask) -> Tensor | float:
        """Return what a network that sees contrasts only cannot know: (N, 1, C*patch*patch)."""
        if self.config.inputs != "contrasts" or self.config.wanted != "values":
            return 0.0
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


def reconstruction_loss(
    reconstruction: Tensor, values: Tensor, observed: Tensor, hidden: Tensor
) -> Tensor:
    """Mean squared error over masked *and* observed cells (scalar, standardised units squared).

    The released code averages over all cells, visible and missing ones included.
    """
    counts = (observed & hidden).to(values.dtype)
    return ((reconstruction - values) ** 2 * counts).sum() / counts.sum().clamp(min=1)


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
    content = artefacts.read_json(place)
    if layers is not None and list(layers) != content["layers"]:
        _refuse(folder, content["layers"], list(layers))
    if units is not None:
        _check_units(folder, content, dict(zip(content["layers"], units, strict=True)))
    model = build(MAEConfig(**content["config"]), seed=0)
    load_weights(model, place.with_name("model.safetensors"))
    return model.eval(), Scaling.load(place.with_name("scaling.json")), content["facts"]


def load_weights(model: nn.Module, place: Path) -> None:
    """Load the weights of a model from a safetensors file.

    Raises
    ------
    ValueError
        If the file is missing, damaged, or of another model; the message names it.
    """
    try:
        model.load_state_dict(load_file(place))
    except (RuntimeError, OSError, SafetensorError) as error:
        raise ValueError(
            f"{place} is damaged or does not fit the model.json beside it; make it again: {error}"
        ) from error


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


def _blocks(width: int, depth: int, heads: int) -> nn.ModuleList:
    return nn.ModuleList(
        Block(dim=width, num_heads=heads, mlp_ratio=4.0, qkv_bias=False, norm_layer=nn.LayerNorm)
        for _ in range(depth)
    )


def _pick(tokens: Tensor, index: Tensor) -> Tensor:
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def backbone_path(study: Study, split: str, fold: int) -> Path:
    """Return where the backbone pretrained on a fold's training cells lies."""
    return study.processed / "backbones" / f"{split}_{fold}"
