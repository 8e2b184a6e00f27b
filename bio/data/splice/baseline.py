"""What softmax regression makes of the splice sites: the least that a model has to reach."""

import argparse
import sys

from torch import Tensor
from torch.nn.functional import one_hot

from tristate.bio.data.splice_sites import SpliceSites
from tristate.core.linear import softmax_regression


def linear_accuracy(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], *, n_ids: int
) -> float:
    """Share of test windows whose class softmax regression on their letters tells.

    Args:
        train: ids ``(M, L)`` and labels ``(M,)``, int64.
        test: the same.
        n_ids: ids are below it.
    """
    (ids, labels), (unseen, wanted) = train, test
    letters, others = (one_hot(x, n_ids).flatten(1).float() for x in (ids, unseen))
    weight, bias = softmax_regression(letters, labels)
    return ((others @ weight + bias).argmax(1) == wanted).double().mean().item()


def main() -> None:
    """Write the accuracy on the test windows, trained on all training windows."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    data = SpliceSites(fresh_decoys=False)
    train = data.encode(data.rows, data.train)
    test = data.encode(data.read("test"), data.test)
    accuracy = linear_accuracy(train, test, n_ids=data.tokenizer.vocab_size)
    sys.stdout.write(f"test accuracy {accuracy:.3f}\n")


if __name__ == "__main__":
    main()
