"""GPT-2 and its training step in plain torch, as nanoGPT has them: what an expert would write by hand."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import AdamW


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, width = x.shape
        parts = self.qkv(self.norm1(x)).split(width, dim=2)
        q, k, v = (part.view(b, t, self.heads, -1).transpose(1, 2) for part in parts)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).contiguous().view(b, t, width))
        return x + self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh"))


class GPT(nn.Module):
    """Its head has weights of its own, as the model has that it is compared with."""

    def __init__(self, layers: int, width: int, heads: int, vocabulary: int, length: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        return functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


def make_step(model: GPT, data: Tensor, batch: int, length: int, device: torch.device) -> Callable[[int], Tensor]:
    """A step of AdamW in bf16 on sequences from anywhere in `data`."""
    optimizer = AdamW(model.parameters(), lr=3e-4, fused=True)

    def place(tokens: Tensor) -> Tensor:
        return tokens.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tokens

    def step(_: int) -> Tensor:
        starts = torch.randint(len(data) - length, (batch,))
        inputs = torch.stack([data[start : start + length].long() for start in starts])
        targets = torch.stack([data[start + 1 : start + 1 + length].long() for start in starts])
        with torch.autocast(device.type, torch.bfloat16):
            loss = model(place(inputs), place(targets))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step
