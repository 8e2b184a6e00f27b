"""The ROC curve's laws."""

import pytest
import torch

from tristate.core.training.roc import area, roc, roc_page


def test_the_area_is_the_share_of_pairs_in_order():
    generator = torch.Generator().manual_seed(0)
    # Whole numbers: many ties, which count half.
    scores = torch.randint(8, (60,), generator=generator).float()
    positive = torch.rand(60, generator=generator) < 0.4
    pairs = scores[positive][:, None] - scores[~positive][None, :]
    wanted = ((pairs > 0).double() + (pairs == 0).double() / 2).mean().item()
    assert area(*roc(scores, positive)) == pytest.approx(wanted)
    shuffled = torch.randperm(60, generator=generator)
    assert area(*roc(scores[shuffled], positive[shuffled])) == pytest.approx(wanted)


def test_it_runs_from_corner_to_corner():
    false, true = roc(torch.tensor([0.9, 0.8, 0.1]), torch.tensor([True, False, False]))
    assert false.tolist() == [0, 0, 0.5, 1] and true.tolist() == [0, 1, 1, 1]
    assert area(false, true) == 1


@pytest.mark.parametrize("classes", [2, 5, 40])
def test_the_page_tells_every_class(classes):
    names = [f"<{i}>" for i in range(classes)]
    labels = torch.arange(60) % (classes - 1)  # the last class never occurs
    page = roc_page(torch.rand(60, classes), labels, names)
    assert all(f"&lt;{i}&gt;" in page for i in range(classes)) and "<0>" not in page
    assert page.count("no such items") == 1
    drawn = 0 if classes > 12 else classes - 1 if classes > 2 else 0
    assert page.count("<polyline") == drawn
