"""Long Range Arena's recipes: each builds, and learns for a step at tiny sizes."""

import pytest
import torch

from tests.core.arena import papers, reviews
from tests.vision.cifar import batches
from tristate.recipes import catalog
from tristate.recipes.builder import Experiment

ARENA = [name for name in catalog.names() if name.startswith("lra/")]
TINY = {
    "s4d": ["mixer_args.d_state=4"],
    "s5": [],
    "lru": ["mixer_args.d_state=4"],
    "mega": ["mixer_args.d_attention=4", "mixer_args.d_hidden=8", "mixer_args.d_state=2"],
    "listops": [],
    "pathfinder": [],
}
DATA = {"text": ["root=reviews"], "retrieval": ["root=papers"], "image": ["root=cifar"]}


@pytest.fixture(scope="module", autouse=True)
def elsewhere(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arena")
    reviews(folder / "reviews", 6)
    papers(folder / "papers", 4)
    batches(folder / "cifar", 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


def experiment(name, *words):
    family, task = name.removeprefix("lra/").split("_")
    model = ["d_model=8", "n_layers=1", *TINY[family]]
    data = ["batch_size=2", "workers=0", *DATA.get(task, [])]
    if task == "pathx":
        data.append("side=32")
    if task == "image":
        data.append("val_size=5")
    if task in ("pathfinder", "pathx"):
        data += ["n_val=2", "n_test=2"]
    return Experiment(
        "fit",
        name,
        [
            *(f"--model.backbone_args.{word}" for word in model),
            *(f"--data.{word}" for word in data),
            "--trainer.accelerator=cpu",
            *words,
        ],
    )


def step(built):
    built.datamodule.setup("fit")
    loss = built.model.loss(next(iter(built.datamodule.train_dataloader())))
    loss.backward()
    before = [p.detach().clone() for p in built.model.parameters()]
    optimizer = built.model.configure_optimizers()
    optimizer.step()
    assert torch.isfinite(loss)
    assert all(p.grad is None or p.grad.isfinite().all() for p in built.model.parameters())
    moved = [not torch.equal(p, b) for p, b in zip(built.model.parameters(), before, strict=True)]
    assert sum(moved) > len(moved) // 2


@pytest.mark.parametrize("name", ARENA)
def test_learns_for_a_step(name):
    step(experiment(name))


def test_s4_takes_the_place_of_s4d():
    built = experiment("lra/s4d_listops", "--model.backbone_args.mixer=s4")
    assert type(built.model.backbone.stack.blocks[0].mixer).__name__ == "S4"
    step(built)


@pytest.mark.parametrize("name", [n for n in ARENA if not n.endswith("_tiny")])
def test_published_figures_are_marked(name):
    entry = catalog.about(catalog.find(name))
    assert entry.published and "not run here" in entry.source
