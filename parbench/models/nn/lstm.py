"""The block of the LSTM family."""

from torch import Tensor, nn

from parbench.models.nn.cache import CarriedState, StaticState


class ResidualLSTM(nn.Module):
    """`x + lstm(norm(x))`: (batch, seq_len, d_model) → the same shape. The residual keeps outputs contiguous."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.lstm = nn.LSTM(d_model, d_model, batch_first=True)

    def forward(self, hidden: Tensor, cache: CarriedState | StaticState | None = None) -> Tensor:
        """With `cache`, continues from the state in the cache."""
        if cache is None:
            output: Tensor = self.lstm(self.norm(hidden))[0]
        else:
            output, cache.state = self.lstm(self.norm(hidden), cache.state)
        return hidden + output

    def new_cache(self, length: int) -> CarriedState:  # noqa: ARG002 - the state has the same size at any length
        """An empty cache for one batch of sequences."""
        return CarriedState()
