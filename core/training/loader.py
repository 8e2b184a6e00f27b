"""Batches that depend on seed, epoch and position alone, so that a resumed run sees the same."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from tristate.core.errors import UserError
from tristate.core.seeds import generator, seeded


class Source(Protocol):
    """A data set that hands out whole batches."""

    def __len__(self) -> int:
        """Number of items."""
        ...

    def batch(self, indices: Tensor, generator: torch.Generator) -> Any:
        """The items at ``indices`` as one batch; all that is random comes from ``generator``."""
        ...


class Items:
    """A data set of single items as a :class:`Source`.

    Python's, NumPy's and PyTorch's global generators are set for each item and put back after it,
    so that any transform is a function of the item's own seed.

    Args:
        dataset: has ``__len__`` and ``__getitem__``.
        collate: makes a batch of a list of items.
    """

    def __init__(self, dataset: Any, collate: Callable[[list[Any]], Any] = default_collate) -> None:
        self.dataset = dataset
        self.collate = collate

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Any:
        """The items one after another, collated."""
        seeds = torch.randint(2**62, (len(indices),), generator=generator)
        items = []
        for index, seed in zip(indices.tolist(), seeds.tolist(), strict=True):
            with seeded(seed):
                items.append(self.dataset[index])
        return self.collate(items)


class Named:
    """A source of ``(items, labels)`` as one of ``(items, names)``, to predict: ``PART[INDEX]``.

    Args:
        source: the source.
        part: what it is called.
    """

    def __init__(self, source: Source, part: str) -> None:
        self.source, self.part = source, part

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Any, list[str]]:
        """The items and their names."""
        items = self.source.batch(indices, generator)[0]
        return items, [f"{self.part}[{index}]" for index in indices.tolist()]


class Loader:
    """Iterates over the batches of an epoch; Lightning saves and restores where it stands.

    The order of an epoch and every random number in a batch follow from ``seed``, the epoch, the
    batch's place and the process. Hence the batches are the same for any number of workers, after
    a kill, and in the middle of an epoch.

    Args:
        source: the data set.
        batch_size: items of a batch in this process.
        shuffle: draw an order for each epoch.
        drop_last: leave out the batch that is not full, so that all processes have equally many.
        seed: the root of all that is random.
        repeats: how often an item follows itself in an epoch, which keeps its length: repeated
            augmentation (Hoffer et al. 2019, https://arxiv.org/abs/1901.09335).
        pieces: hand out each batch in so many pieces along time, one after another, for a model
            that hands its state on: axis 1 of all its tensors that have one is cut.
        workers: processes that prepare batches; 0 for this one.
        rank: index of this process among those that train together.
        world_size: how many they are.
        pin_memory: hand out batches in page-locked memory, for a GPU.

    Raises:
        ValueError: a size is not positive, or no batch is left.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        *,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        repeats: int = 1,
        pieces: int = 1,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
    ) -> None:
        if min(batch_size, repeats, pieces) < 1 or workers < 0:
            raise ValueError(
                "batch_size, repeats and pieces must be at least 1 and workers at least 0, "
                f"got {batch_size}, {repeats}, {pieces} and {workers}"
            )
        self.source, self.batch_size = source, batch_size
        self.shuffle, self.drop_last, self.seed, self.repeats = shuffle, drop_last, seed, repeats
        self.pieces = pieces
        self.workers, self.rank, self.world_size = workers, rank, world_size
        self.pin_memory = pin_memory
        self._epoch = 0
        self._handed_out = (0, 0)  # epoch, batches
        self._resume = (0, 0)
        if not self._whole:
            raise ValueError(
                f"{len(source)} items in {world_size} processes do not fill a batch of {batch_size}"
            )

    def __len__(self) -> int:
        return self._whole * self.pieces

    @property
    def _whole(self) -> int:
        """Batches of an epoch before they are cut."""
        items = len(self.source)
        if self.drop_last:
            return items // self.world_size // self.batch_size
        # The first processes may have one item more.
        mine = len(range(self.rank, items, self.world_size))
        return math.ceil(mine / self.batch_size)

    # Lightning looks for a sampler in these, as a DataLoader has them, and tells it the epoch.
    batch_sampler = None

    @property
    def sampler(self) -> "Loader":
        """Itself."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws."""
        self._epoch = epoch

    def order(self, epoch: int) -> Tensor:
        """The items of this process in the epoch, ``(M,)`` int64."""
        items = len(self.source)
        if not self.shuffle:
            order = torch.arange(items)
        else:
            order = torch.randperm(items, generator=generator(self.seed, epoch))
        if self.repeats > 1:
            order = order.repeat_interleave(self.repeats)[:items]
        return order[self.rank :: self.world_size]

    def __iter__(self) -> Iterator[Any]:
        # The body runs at the first `next`, when Lightning has told the epoch.
        epoch, (resumed, done) = self._epoch, self._resume
        self._resume = (0, 0)
        start = done if resumed == epoch and done < len(self) else 0
        chunks = self.order(epoch).split(self.batch_size)[: self._whole]
        places = range(start // self.pieces, len(chunks))
        draws = [(chunks[i], (self.seed, epoch, i, self.rank)) for i in places]
        for whole, batch in zip(places, self._batches(draws), strict=True):
            for place, piece in enumerate(_cut(batch, self.pieces), whole * self.pieces):
                if place >= start:
                    self._handed_out = (epoch, place + 1)
                    yield piece

    def _batches(self, draws: Sequence[tuple[Tensor, tuple[int, ...]]]) -> Iterator[Any]:
        if not self.workers:
            for indices, keys in draws:
                yield self.source.batch(indices, generator(*keys))
            return
        loader = DataLoader(
            _Draws(self.source),
            batch_size=None,
            sampler=draws,
            num_workers=self.workers,
            pin_memory=self.pin_memory,
            collate_fn=_as_it_is,
            # The worker's own seed is drawn from here and not from the training's numbers.
            generator=torch.Generator(),
        )
        for batch in loader:
            if isinstance(batch, _Failure):
                raise UserError(batch.sentence)
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where it stands: the epoch, and how many of its batches were handed out."""
        epoch, done = self._handed_out
        return {"epoch": epoch, "done": done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration over the epoch of ``state`` start where that left off."""
        self._resume = (state["epoch"], state["done"])


def _cut(batch: Any, pieces: int) -> list[Any]:
    """``batch`` in equal pieces along axis 1 of its tensors; what has no such axis is in each."""
    if pieces == 1:
        return [batch]
    if isinstance(batch, Tensor):
        if batch.ndim < 2:
            return [batch] * pieces
        if batch.shape[1] % pieces:
            raise UserError(
                f"{batch.shape[1]} positions can't be handed out in {pieces} equal pieces: choose "
                "a length that pieces divides"
            )
        return list(batch.chunk(pieces, dim=1))
    if isinstance(batch, (tuple, list)):
        parts = zip(*(_cut(part, pieces) for part in batch), strict=True)
        return [type(batch)(part) for part in parts]
    return [batch] * pieces


class _Failure:
    """An error for the user on its way out of a worker, which would wrap it in a traceback."""

    def __init__(self, sentence: str) -> None:
        self.sentence = sentence


class _Draws(Dataset[Any]):
    """What a worker process runs: keys in, batch out."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __getitem__(self, draw: tuple[Tensor, tuple[int, ...]]) -> Any:
        indices, keys = draw
        try:
            return self.source.batch(indices, generator(*keys))
        except UserError as error:
            return _Failure(str(error))


def _as_it_is(batch: Any) -> Any:
    return batch
