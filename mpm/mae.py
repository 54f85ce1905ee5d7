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

from mpm import artefacts
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
    mask_ratio: float = 0.75

    def __post_init__(self) -> None:
        if self.window % 2 == 0 or self.window % self.patch:
            raise ValueError(
                f"window {self.window} must be odd and a multiple of patch {self.patch}"
            )
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio {self.mask_ratio} must lie between 0 and 1")

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


def random_masking(n: int, tokens: int, ratio: float, generator: torch.Generator) -> Tensor:
    """Draw which patches stay visible, in random order: (n, kept) indices.

    Source: He et al. 2022, arXiv:2111.06377, section 3, "masking".
    """
    kept = max(1, round(tokens * (1 - ratio)))
    noise = torch.rand(n, tokens, generator=generator)
    return noise.argsort(dim=1)[:, :kept]


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
        self.values = nn.Linear(config.layers * config.patch**2, config.width)
        self.missing = nn.Linear(config.layers, config.width, bias=False)
        self.position = nn.Parameter(sine_positions(config.tokens, config.width))
        self.cls = nn.Parameter(torch.zeros(1, 1, config.width))
        self.blocks = _blocks(config.width, config.depth, config.heads)
        self.norm = nn.LayerNorm(config.width)
        nn.init.trunc_normal_(self.cls, std=0.02)
        nn.init.zeros_(self.missing.weight)

    def forward(self, values: Tensor, observed: Tensor, visible: Tensor | None = None) -> Tensor:
        """Encode windows.

        Parameters
        ----------
        values : Tensor (N, C, H, W)
            Standardised evidence, 0 where missing.
        observed : Tensor (N, C, H, W)
            bool.
        visible : Tensor (N, kept), optional
            Patches to encode; all by default.

        Returns
        -------
        Tensor (N, 1 + kept, width)
            CLS first.
        """
        size = self.config.patch
        return self.encode(patchify(values, size), patchify(observed, size), visible)

    def encode(self, patches: Tensor, seen: Tensor, visible: Tensor | None = None) -> Tensor:
        """Encode windows that are cut into patches already: (N, L, C*patch*patch), as `forward`."""
        position = self.position.expand(len(patches), -1, -1)
        if visible is not None:  # hidden patches cost nothing
            patches, seen, position = (_pick(part, visible) for part in (patches, seen, position))
        layers = seen.unflatten(2, (self.config.layers, -1))
        gaps = 1 - layers.to(patches.dtype).mean(dim=3)  # (N, kept, C), share of missing cells
        tokens = self.values(patches) + position + self.missing(gaps)
        tokens = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


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

    def forward(self, values: Tensor, observed: Tensor, visible: Tensor) -> Tensor:
        """Reconstruct windows from their visible patches.

        Parameters
        ----------
        values, observed : Tensor (N, C, H, W)
            As for `Encoder.forward`.
        visible : Tensor (N, kept)
            Of `random_masking`.

        Returns
        -------
        Tensor (N, C, H, W)
        """
        latent = self.encoder(values, observed, visible)
        return unpatchify(self.fill(self.decode(latent, visible)), self.config.patch)

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

    def loss(self, values: Tensor, observed: Tensor, visible: Tensor) -> Tensor:
        """Return `reconstruction_loss` of windows without reconstructing what is not scored."""
        error, count = self.squared_error(values, observed, visible)
        return error / count.clamp(min=1)

    def squared_error(
        self, values: Tensor, observed: Tensor, visible: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the sum of squared errors over masked and observed cells, and their number."""
        size = self.config.patch
        patches, seen = patchify(values, size), patchify(observed, size)
        decoded = self.decode(self.encoder.encode(patches, seen, visible), visible)
        hidden = torch.ones(decoded.shape[:2], dtype=torch.bool, device=values.device)
        hidden = hidden.scatter(1, visible, False).nonzero()[:, 1].view(len(values), -1)
        made, wanted, counted = (_pick(part, hidden) for part in (decoded, patches, seen))
        error = (self.fill(made) - wanted).where(counted, 0.0)
        return error.square().sum(), counted.sum()


def masked_cells(visible: Tensor, config: MAEConfig) -> Tensor:
    """Say which cells of a window are hidden: (N, kept) -> (N, 1, H, W) bool."""
    hidden = torch.ones(len(visible), config.tokens, dtype=torch.bool, device=visible.device)
    hidden = hidden.scatter(1, visible, False)
    side = config.window // config.patch
    hidden = hidden.view(-1, 1, side, side)
    return hidden.repeat_interleave(config.patch, 2).repeat_interleave(config.patch, 3)


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
    folder: Path, *, layers: Sequence[str] | None = None
) -> tuple[MaskedAutoencoder, Scaling, dict]:
    """Load a backbone saved by `save`.

    Parameters
    ----------
    folder : Path
    layers : sequence of str, optional
        The layers of the cube it is meant for.

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
        If the layers differ (naming them), or the files are damaged or do not fit each other.
    """
    place = artefacts.require(Path(folder) / "model.json", "02_mae_pretraining")
    content = artefacts.read_json(place)
    if layers is not None and list(layers) != content["layers"]:
        _refuse(folder, content["layers"], list(layers))
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
