"""What softmax regression on counts of 4-mers makes of coding and intergenic windows."""

import argparse
import sys

import torch
from torch import Tensor

from tristate.bio.data.coding import CodingWindows
from tristate.bio.models.kmers import kmer_numbers
from tristate.core.linear import softmax_regression

K = 4


def counts(codes: Tensor) -> Tensor:
    """How often each of the 256 4-mers stands in windows ``(M, L)`` of codes 0 to 3, and -1."""
    numbers = kmer_numbers(codes, K)[:, K - 1 :]
    found = torch.zeros(len(codes), 4**K + 1)
    return found.scatter_add_(1, numbers, torch.ones(numbers.shape))[:, :-1]


def main() -> None:
    """Write the accuracy on the test windows, trained on all training windows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", help="an annotated genome, as a GenBank file")
    data = CodingWindows(parser.parse_args().path)
    codes = torch.full((data.tokenizer.vocab_size,), -1)
    codes[list(data.tokenizer.base_ids)] = torch.arange(4)
    (ids, labels), (unseen, wanted) = (
        data.encode(rows, data.train) for rows in (data.rows, data.read("test"))
    )
    found, others = counts(codes[ids]), counts(codes[unseen])
    # In a small genome some 4-mers are missing, or in all windows alike.
    scale = found.std(0).clamp(min=1e-6)
    weight, bias = softmax_regression(found / scale, labels, penalty=1e-3)
    accuracy = ((others / scale @ weight + bias).argmax(1) == wanted).double().mean()
    sys.stdout.write(f"test accuracy {accuracy.item():.3f}\n")


if __name__ == "__main__":
    main()
