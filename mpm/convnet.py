"""The convolutional rival: a ResNet-18 on windows, trained as the transformers are."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mpm.encoder import resnet18

# The demo's transformer has a quarter of the published width, and so has its rival.
FIRST_STAGE = {"paper": 64, "demo": 16}


@dataclass(frozen=True)
class ConvConfig:
    """Size of the network and of what it sees."""

    layers: int  # evidence layers
    window: int  # cells along one side
    stage: int = 64  # features of the first stage; each of three more doubles them

    @property
    def width(self) -> int:
        """Features of a token."""
        return 8 * self.stage

    @property
    def tokens(self) -> int:
        """Places of the last stage: three times it halves the window, rounding up."""
        return (-(-self.window // 8)) ** 2


def preset(name: str, layers: int, window: int) -> ConvConfig:
    """Return the settings of a named preset ("demo" or "paper").

    Raises
    ------
    ValueError
        If there is no such preset.
    """
    if name not in FIRST_STAGE:
        raise ValueError(f"no preset is called {name!r}; there are {', '.join(FIRST_STAGE)}")
    return ConvConfig(layers, window, FIRST_STAGE[name])


class ConvEncoder(nn.Module):
    """ResNet-18 in the place of the transformer: `fine_tuning.fine_tune` takes either.

    A missing cell enters as the layer's training mean, and a second channel of each layer says
    where it is missing.
    """

    def __init__(self, config: ConvConfig):
        super().__init__()
        self.config = config
        # a cell's channels side by side in memory: about a quarter faster on a CPU
        self.net = resnet18(2 * config.layers, config.stage).to(memory_format=torch.channels_last)

    def forward(
        self, values: Tensor, observed: Tensor, *, only: Sequence[int] | None = None
    ) -> Tensor:
        """Encode windows.

        Parameters
        ----------
        values : Tensor (N, C, H, W)
            Standardised evidence, 0 where missing.
        observed : Tensor (N, C, H, W)
            bool.
        only : sequence of int, optional
            Tokens that are read.

        Returns
        -------
        Tensor (N, 1 + tokens, width)
            First the mean over all places, on which a ResNet classifies, then the places; or
            (N, len(only), width).
        """
        both = torch.cat([values, (~observed).to(values.dtype)], dim=1)
        places = self.net(both.contiguous(memory_format=torch.channels_last)).flatten(2)
        tokens = torch.cat([places.mean(dim=2, keepdim=True), places], dim=2).transpose(1, 2)
        return tokens if only is None else tokens[:, only]


def build(config: ConvConfig, seed: int) -> ConvEncoder:
    """Make an untrained network whose weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ConvEncoder(config)
