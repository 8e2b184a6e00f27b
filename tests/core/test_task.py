"""The base task: schedule, budget, average, and what it does when the loss breaks."""

import csv
from datetime import timedelta

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

from tests.core.toy import LIGHTNING, Diary, ToyData, ToyTask, make_task, make_trainer
from tristate.core.errors import UserError
from tristate.core.training.average import TRAINED
from tristate.core.training.optim import warmup_cosine

pytestmark = [pytest.mark.filterwarnings(line) for line in LIGHTNING]


class Rates(Callback):
    """Notes the learning rate of each step; each takes ``seconds`` on a clock of its own."""

    def __init__(self, clock=None, seconds=0.0):
        self.rates, self.clock, self.seconds = [], clock, seconds

    def on_train_batch_end(self, trainer, *args, **kwargs):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        if self.clock:
            self.clock.now += self.seconds


def fit(folder, task, *callbacks, ckpt_path=None, **options):
    trainer = make_trainer(folder, Diary(), **options)
    trainer.callbacks[:0] = callbacks  # pyright: ignore[reportAttributeAccessIssue]
    trainer.fit(task, ToyData(), ckpt_path=ckpt_path)
    return trainer


def test_rate_follows_the_steps(tmp_path):
    rates = Rates()
    fit(tmp_path, make_task(warmup=0.2, lr_floor=0.1), rates)
    expected = [0.02 * warmup_cosine((step + 0.5) / 20, 0.2, 0.1) for step in range(20)]
    assert rates.rates == pytest.approx(expected)


def test_rate_follows_accumulated_steps(tmp_path):
    rates = Rates()
    fit(tmp_path, make_task(warmup=0.2), rates, accumulate_grad_batches=5)
    assert rates.rates[::5] == pytest.approx(
        [0.02 * warmup_cosine((step + 0.5) / 4, 0.2, 0) for step in range(4)]
    )


class Clock:
    now = 0.0


@pytest.fixture
def clock(monkeypatch):
    """A clock for the trainer's budget that moves only when a test moves it."""
    clock = Clock()
    monkeypatch.setattr("lightning.pytorch.callbacks.timer.time.monotonic", lambda: clock.now)
    return clock


def test_a_slow_run_is_annealed_within_its_budget(tmp_path, clock):
    rates = Rates(clock, seconds=10)
    fit(tmp_path, make_task(warmup=0.0), rates, max_time=timedelta(seconds=100))
    # The first step starts the clock: 90 seconds are left for nine more.
    assert len(rates.rates) == 10
    expected = [0.02 * warmup_cosine(max((n + 0.5) / 20, (n - 1) / 9), 0, 0) for n in range(10)]
    assert rates.rates[1:] == pytest.approx(expected[1:])
    assert rates.rates == sorted(rates.rates, reverse=True)
    assert rates.rates[-1] < 0.1 * rates.rates[0]


def test_a_budget_with_slack_plays_no_part(tmp_path, clock):
    free, bound = Rates(), Rates(clock, seconds=1)
    fit(tmp_path / "free", make_task(), free)
    fit(tmp_path / "bound", make_task(), bound, max_time=timedelta(seconds=60))
    assert free.rates == bound.rates


def test_the_average_is_validated_and_saved(tmp_path):
    seen = []

    class Watch(Callback):
        """Averages beside, and looks at what validation sees."""

        def on_train_start(self, trainer, pl_module):
            self.mine = {k: v.clone() for k, v in pl_module.state_dict().items()}
            self.n = 0

        def on_train_batch_end(self, trainer, pl_module, *args, **kwargs):
            decay = min(0.9, (1 + self.n) / (10 + self.n))
            self.n += 1
            for key, value in pl_module.state_dict().items():
                if value.is_floating_point():
                    self.mine[key] = decay * self.mine[key] + (1 - decay) * value
                else:
                    self.mine[key] = value.clone()

        def on_validation_batch_start(self, trainer, pl_module, *args, **kwargs):
            if not trainer.sanity_checking:
                torch.testing.assert_close(dict(pl_module.state_dict()), self.mine)
                seen.append(trainer.global_step)

    watch, task = Watch(), make_task(ema=0.9)
    fit(tmp_path, task, watch)
    assert set(seen) == {5, 10, 15, 20}
    torch.testing.assert_close(dict(task.state_dict()), watch.mine)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    torch.testing.assert_close(dict(saved["state_dict"]), watch.mine)
    assert not torch.equal(saved[TRAINED]["net.0.weight"], saved["state_dict"]["net.0.weight"])


def test_testing_takes_the_average(tmp_path):
    task = make_task(ema=0.9)
    trainer = fit(tmp_path, task)
    average = {name: value.clone() for name, value in task.state_dict().items()}
    trainer.validate(task, ToyData(), ckpt_path=tmp_path / "last.ckpt", verbose=False)
    assert all(torch.equal(value, average[name]) for name, value in task.state_dict().items())
    again = ToyTask.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert all(torch.equal(value, average[name]) for name, value in again.state_dict().items())


def test_fitting_again_goes_on_with_the_trained_weights(tmp_path):
    task, trained = make_task(ema=0.9), {}

    class Peek(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args, **kwargs):
            trained.update({k: v.clone() for k, v in pl_module.state_dict().items()})

        def on_train_epoch_start(self, trainer, pl_module):
            if trained:
                assert torch.equal(next(pl_module.parameters()), trained["net.0.weight"])

    trainer = fit(tmp_path, task, Peek())
    assert not torch.equal(next(task.parameters()), trained["net.0.weight"])
    trainer.fit_loop.max_epochs = 5
    trainer.fit(task, ToyData())
    assert trainer.current_epoch == 5


def test_a_broken_loss_ends_the_run_and_leaves_the_last_checkpoint(tmp_path):
    with pytest.raises(UserError, match=r"the loss became nan in step 13") as error:
        fit(tmp_path, make_task(break_at=13))
    assert str(tmp_path / "last.ckpt") in str(error.value)
    assert "\n" not in str(error.value)
    trainer = fit(tmp_path / "on", make_task(), ckpt_path=tmp_path / "last.ckpt", max_epochs=4)
    assert trainer.global_step == 20


def test_broken_weights_are_not_saved(tmp_path):
    class Break(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args, **kwargs):
            if trainer.global_step == 6:
                with torch.no_grad():
                    next(pl_module.parameters()).fill_(float("nan"))

    with pytest.raises(UserError, match="no longer finite"):
        fit(tmp_path, make_task(ema=None), Break())
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 4 and saved["state_dict"]["net.0.weight"].isfinite().all()


def test_records_rate_speed_and_memory(tmp_path):
    logger = CSVLogger(tmp_path)
    fit(tmp_path, make_task(), logger=logger, log_every_n_steps=2)
    with open(f"{logger.log_dir}/metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for name in ("train/loss", "train/lr", "train/items_per_second", "train/memory_mb", "val/loss"):
        values = [float(row[name]) for row in rows if row.get(name)]
        assert len(values) >= 4 and all(value > 0 for value in values), name


@pytest.mark.parametrize(
    "wrong",
    [{"lr": -1.0}, {"weight_decay": -1.0}, {"warmup": 1.5}, {"lr_floor": -0.1}, {"ema": 1.0}],
)
def test_refuses_numbers_out_of_range(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        ToyTask(**wrong)
