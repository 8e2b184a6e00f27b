"""What somebody else would write: a mixer, and a data set and a model for each domain."""

from typing import Any

import torch
from timm.models import register_model
from torch import Tensor, nn

from tristate.audio.data.collate import collate
from tristate.core.backbone import Backbone
from tristate.core.mixer import Mixer
from tristate.core.plain import plain_stack
from tristate.core.training.data import DataModule
from tristate.core.training.loader import Loader


class RunningMean(Mixer):
    """The mean of all positions so far, mapped."""

    causal = True
    memory = "constant"

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.d_model = d_model
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, *, seq_idx: Tensor | None = None) -> Tensor:
        count = torch.arange(1, x.shape[1] + 1)[:, None]
        return self.out_proj(x.cumsum(1) / count)


class Pairs(DataModule):
    """Two classes of made-up items; ``make(labels, generator)`` makes a batch."""

    told: dict[str, Any]

    def __init__(self, batch_size: int = 16) -> None:
        super().__init__(batch_size, workers=0, seed=None)

    @property
    def facts(self) -> dict[str, Any]:
        return self.told

    def __len__(self) -> int:
        return 64

    def make(self, labels: Tensor, generator: torch.Generator) -> Any:
        raise NotImplementedError

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Any, Tensor]:
        labels = indices % 2
        return self.make(labels, generator), labels

    def train_dataloader(self) -> Loader:
        return self.loader(self, train=True)

    def val_dataloader(self) -> Loader:
        return self.loader(self)

    test_dataloader = val_dataloader


class Brightness(Pairs):
    """Images ``(B, 1, 4, 4)``: dark or bright."""

    told = {"class_names": ["dark", "bright"], "in_chans": 1, "input_size": [4, 4]}

    def make(self, labels, generator):
        return torch.rand(len(labels), 1, 4, 4, generator=generator) + labels[:, None, None, None]


class Loudness(Pairs):
    """Clips of 2,000 samples: soft or loud."""

    told = {"class_names": ["soft", "loud"], "in_chans": 1, "sample_rate": 16_000, "kind": "wave"}

    def make(self, labels, generator):
        clips = torch.rand(len(labels), 2000, generator=generator) * (1 + labels[:, None])
        return collate(list(clips))


class Content(Pairs):
    """Windows of 20 letters: of A and C, or of G and T."""

    told = {
        "class_names": ["AC", "GT"],
        "tokens": list("0123456ACGT"),
        "vocab_size": 11,
        "pad_id": 4,
        "max_length": 20,
    }

    def make(self, labels, generator):
        draw = torch.randint(7, 9, (len(labels), 20), generator=generator)
        return draw + 2 * labels[:, None]


class Tokens(Backbone):
    """A stack over what a linear map, or a table of vectors, makes of an input."""

    def __init__(self, num_classes: int, vocab_size: int = 0, **facts: Any) -> None:
        stack = plain_stack(8, 1, mixer="running_mean")
        super().__init__(stack, 8, num_classes=num_classes, global_pool="avg", drop_rate=0.0)
        self.proj = nn.Embedding(vocab_size, 8) if vocab_size else nn.Linear(1, 8)

    def embed(self, x, seq_idx=None):
        return self.proj(x if x.dtype == torch.int64 else x.flatten(1)[..., None]), seq_idx


@register_model
def flat_pixels(pretrained: bool = False, **kwargs: Any) -> Tokens:
    return Tokens(kwargs["num_classes"])
