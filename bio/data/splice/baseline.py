"""What softmax regression makes of the splice sites: the least that a model has to reach."""

import argparse
import sys

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from tristate.bio.data.splice_sites import SpliceSites
from tristate.bio.data.tsv import read_tsv


def linear_accuracy(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], *, n_ids: int, penalty: float = 3e-4
) -> float:
    """Share of test windows whose class softmax regression on their letters tells.

    Args:
        train: ids ``(M, L)`` and labels ``(M,)``, int64.
        test: the same.
        n_ids: ids are below it.
        penalty: of the sum of squares of the weights.
    """
    (ids, labels), (unseen, wanted) = train, test
    letters, others = (one_hot(x, n_ids).flatten(1).float() for x in (ids, unseen))
    n_classes = int(labels.max()) + 1
    weight = torch.zeros(letters.shape[1], n_classes, requires_grad=True)
    bias = torch.zeros(n_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = cross_entropy(letters @ weight + bias, labels) + penalty * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        return ((others @ weight + bias).argmax(1) == wanted).double().mean().item()


def main() -> None:
    """Write the accuracy on the test windows, trained on all training windows."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    data = SpliceSites(fresh_decoys=False)
    train = data.encode(data.rows, data.train)
    test = data.encode(read_tsv(data.test), data.test)
    accuracy = linear_accuracy(train, test, n_ids=data.tokenizer.vocab_size)
    sys.stdout.write(f"test accuracy {accuracy:.3f}\n")


if __name__ == "__main__":
    main()
