"""The networks of appendix C, and a convolutional pair: from tensors to the parameters of distributions.

Every module takes and gives a datapoint as one flat row of D values, and any dims before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vae_ext.aevb.interface import Gaussian
from vae_ext.train_config import DECODER_LOG_VARS, DECODER_MEANS

CHANNELS = (16, 32)


class GaussianHead(nn.Module):
    """Reads the last outputs of a network as the parameters of a Gaussian over `dim` values.

    Args:
        dim: of the Gaussian.
        mean: ``linear``, or ``sigmoid`` for one in (0, 1).
        log_var: where the logarithm of the variance comes from: ``network`` gives one for every element of every
            datapoint, as in the paper; ``elements`` learns one for each element, ``shared`` one for all; a number fixes
            it.

    Attributes:
        num_outputs: how many outputs the network must have.
    """

    def __init__(self, dim: int, mean: str = "linear", log_var: str | float = "network") -> None:
        super().__init__()
        if mean not in DECODER_MEANS:
            raise ValueError(f"mean is {mean!r}; expected one of {', '.join(DECODER_MEANS)}")
        if isinstance(log_var, str) and log_var not in DECODER_LOG_VARS:
            raise ValueError(f"log_var is {log_var!r}; expected a number or one of {', '.join(DECODER_LOG_VARS)}")
        self.sigmoid = mean == "sigmoid"
        self.num_outputs = 2 * dim if log_var == "network" else dim
        self.log_var: float | nn.Parameter | None = None if isinstance(log_var, str) else float(log_var)
        if log_var in ("elements", "shared"):
            self.log_var = nn.Parameter(torch.zeros(dim if log_var == "elements" else ()))

    def forward(self, outputs: Tensor) -> Gaussian:
        """`[*S, num_outputs]` to a mean `[*S, dim]` and its log_var (a view where the network gives it)."""
        mean, log_var = (outputs, self.log_var) if self.log_var is not None else outputs.chunk(2, dim=-1)
        if isinstance(log_var, Tensor):
            # Under autocast the outputs are bfloat16, and the parameter is not; an operator takes one dtype.
            log_var = log_var.to(mean.dtype)
        return Gaussian(torch.sigmoid(mean) if self.sigmoid else mean, log_var)


class BernoulliMLP(nn.Module):
    """One tanh layer, then a linear one whose outputs are the logits of a Bernoulli (appendix C.1):

        y = sigmoid(logits),   logits = W2 tanh(W1 z + b1) + b2

    The paper's f_sigma is left to the likelihood, which is accurate where y is all but 0 or 1.
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(in_dim, hidden_dim)
        self.output = nn.Linear(hidden_dim, out_dim)

    def forward(self, inputs: Tensor) -> Tensor:
        """`[*S, in_dim]` to `[*S, out_dim]`."""
        outputs: Tensor = self.output(torch.tanh(self.hidden(inputs)))
        return outputs


class GaussianMLP(nn.Module):
    """One tanh layer, then a linear one whose halves are mean and log_var: an encoder or a decoder (appendix C.2):

        mu = W4 h + b4,   log sigma^2 = W5 h + b5,   h = tanh(W3 z + b3)

    W4 above W5 are one matrix here. As an encoder it has x in the place of z, and a Gaussian over z.
    `mean` and `log_var` are those of `GaussianHead`.
    """

    def __init__(
        self, in_dim: int, hidden_dim: int, out_dim: int, mean: str = "linear", log_var: str | float = "network"
    ) -> None:
        super().__init__()
        self.head = GaussianHead(out_dim, mean, log_var)
        self.hidden = nn.Linear(in_dim, hidden_dim)
        self.output = nn.Linear(hidden_dim, self.head.num_outputs)

    def forward(self, inputs: Tensor) -> Gaussian:
        """`[*S, in_dim]` to a Gaussian over `[*S, out_dim]`."""
        gaussian: Gaussian = self.head(self.output(torch.tanh(self.hidden(inputs))))
        return gaussian


class ConvEncoder(nn.Module):
    """Two convolutions that halve the picture, a dense layer, then mean and log_var of z.

    Args:
        event_shape: `[H, W]` or `[H, W, C]`, sides of at least 4, of the rows `[B, H * W * C]` that come in.
    """

    def __init__(self, event_shape: Sequence[int], hidden_dim: int, latent_dim: int) -> None:
        super().__init__()
        self.picture = picture_shape(event_shape)
        height, width, channels = self.picture
        first, second = CHANNELS
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, first, kernel_size=4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(first, second, kernel_size=4, stride=2, padding=1),
            nn.ReLU(),
        )
        self.head = GaussianHead(latent_dim)
        self.hidden = nn.Linear(second * (height // 4) * (width // 4), hidden_dim)
        self.output = nn.Linear(hidden_dim, self.head.num_outputs)

    def forward(self, x: Tensor) -> Gaussian:
        """`[B, H * W * C]` to a Gaussian over `[B, latent_dim]`."""
        pictures = x.unflatten(1, self.picture).permute(0, 3, 1, 2)
        features = self.convolutions(pictures).flatten(1)
        gaussian: Gaussian = self.head(self.output(torch.relu(self.hidden(features))))
        return gaussian


class ConvDecoder(nn.Module):
    """The mirror image of `ConvEncoder`: two dense layers, then two transposed convolutions.

    Args:
        event_shape: `[H, W]` or `[H, W, C]`, sides of at least 4.
        head: reads the outputs as a Gaussian over the picture; without one they are logits.
    """

    def __init__(
        self, latent_dim: int, hidden_dim: int, event_shape: Sequence[int], head: GaussianHead | None = None
    ) -> None:
        super().__init__()
        height, width, self.channels = picture_shape(event_shape)
        self.head = head
        values = height * width * self.channels
        self.num_outputs = values if head is None else head.num_outputs
        maps = self.num_outputs // values
        second, first = CHANNELS
        self.small = (first, height // 4, width // 4)
        self.hidden = nn.Linear(latent_dim, hidden_dim)
        self.expand = nn.Linear(hidden_dim, first * (height // 4) * (width // 4))
        # What halving the sides rounded off comes back as padding.
        half_odd, odd = (height // 2 % 2, width // 2 % 2), (height % 2, width % 2)
        self.convolutions = nn.Sequential(
            nn.ReLU(),
            nn.ConvTranspose2d(first, second, kernel_size=4, stride=2, padding=1, output_padding=half_odd),
            nn.ReLU(),
            nn.ConvTranspose2d(second, maps * self.channels, kernel_size=4, stride=2, padding=1, output_padding=odd),
        )

    def forward(self, z: Tensor) -> Tensor | Gaussian:
        """`[*S, J]` to logits `[*S, H * W * C]`, or to a Gaussian over as many."""
        features = self.expand(torch.relu(self.hidden(z))).reshape(-1, *self.small)
        # [N, maps * C, H, W] to [N, maps, H, W, C], the maps being mean and log_var where there are two.
        pictures = self.convolutions(features).unflatten(1, (-1, self.channels)).permute(0, 1, 3, 4, 2)
        rows: Tensor = pictures.reshape(*z.shape[:-1], self.num_outputs)
        if self.head is None:
            return rows
        gaussian: Gaussian = self.head(rows)
        return gaussian


def picture_shape(event_shape: Sequence[int]) -> tuple[int, int, int]:
    """`(H, W, C)` of what the convolutions take. Raises ValueError for anything else."""
    if len(event_shape) not in (2, 3) or min(event_shape[:2]) < 4:
        raise ValueError(
            f"a datapoint has shape {list(event_shape)}; expected a picture [H, W] or [H, W, C] of 4 x 4 pixels or more"
        )
    height, width, *channels = event_shape
    return height, width, channels[0] if channels else 1
