"""Memory of learning from a stream: online it stays, going back through all of it grows."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from tristate.core.online.learners import OnlineLearner, TruncatedLearner
from tristate.core.online.stream import Recall
from tristate.core.tokens import Tokens
from tristate.recipes.bench.cases import Case
from tristate.recipes.bench.memory import ONLINE

LENGTHS = (10**3, 10**4, 10**5, 10**6)
D_MODEL, STATES = 16, 16
PIECE = 1000  # steps of the stream that lie in memory at a time
WINDOW = 16
LONGEST_IN_QUICK = 10**4
# Beyond it going back through all of it takes gigabytes.
LONGEST_FOR_ALL = 10**5


def cases(quick: bool) -> Iterator[Case]:
    """One case a way of learning and a length, rising; one layer of the LRU, exact online."""
    stream = Recall()
    model = Tokens(
        stream.d_input,
        stream.n_symbols,
        d_model=D_MODEL,
        n_layers=1,
        mixer="lru",
        mixer_args={"d_state": STATES},
    )
    for length in LENGTHS:
        if quick and length > LONGEST_IN_QUICK:
            continue
        ways = {
            "exact": partial(online, model),
            f"a window of {WINDOW}": partial(back, model, WINDOW, PIECE),
        }
        if length <= LONGEST_FOR_ALL:
            ways["back through all"] = partial(back, model, length, length)
        for name, learn in ways.items():
            if length == LENGTHS[0]:
                # What is compiled and loaded on the way stays in memory, and is not the learner's.
                learn(stream, length)
            yield Case(
                f"{ONLINE}, {name}, {length:,} steps",
                {"B": 1, "D": D_MODEL, "L": length, "N": STATES},
                dict(model.named_parameters()),
                partial(learn, stream, length),
                directions=("forward+backward",),
                once=True,
            )


def online(model: Tokens, stream: Recall, length: int, **_: Tensor) -> Tensor:
    """Learn ``length`` steps with exact gradients; the share of the last answers that was right."""
    return _learn(OnlineLearner(model), stream, length, PIECE)


def back(
    model: Tokens, window: int, piece: int, stream: Recall, length: int, **_: Tensor
) -> Tensor:
    """Learn ``length`` steps, each loss back through at most ``window`` of them."""
    return _learn(TruncatedLearner(model, window), stream, length, piece)


def _learn(
    learner: OnlineLearner | TruncatedLearner, stream: Recall, length: int, piece: int
) -> Tensor:
    generator, right = torch.Generator().manual_seed(0), torch.empty(0)
    for _ in range(length // piece):
        right = learner.learn(*stream.periods(1, piece // stream.lag, 0, generator))
        learner.model.zero_grad()
    return right
