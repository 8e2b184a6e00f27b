"""What holds the parameters of a state-space model, and makes a recurrence of them."""

import torch
from torch import Tensor, nn

from tristate.core.parts.memo import Memo
from tristate.core.rate import Sampled
from tristate.core.ssm.positive import LEAST, log_uniform, positive, time_constant
from tristate.core.ssm.recurrence import Recurrence, Stepper


class StateSpace(Sampled, nn.Module):
    """``H`` continuous-time models of ``N`` states, one input and ``C`` outputs each.

    A subclass computes :meth:`recurrence` from its parameters.

    Attributes:
        rate: by which all step sizes are multiplied; :func:`tristate.core.rate.set_rate` sets it
            throughout a network.
        d_model: channels, ``H``.
        channels: outputs of each, ``C``.
        n_states: states that are kept of each, ``N``; of complex ones half of the conjugate pairs.
        is_complex: whether the states are.
        streams: the model has a state; False where its kernel follows from the input's length.
    """

    d_model: int
    channels: int
    n_states: int
    is_complex: bool = True
    streams: bool = True

    def __init__(self) -> None:
        super().__init__()
        self._memo: Memo[Stepper] = Memo()

    def recurrence(self) -> Recurrence:
        """The model from one position to the next, at its steps times ``rate``."""
        raise NotImplementedError

    def kernel(self, length: int) -> Tensor:
        """Its convolution kernel, ``(C, H, length)``, at least float32."""
        return self.recurrence().kernel(length)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs ``(B, C, H)`` for one position ``x (B, H)``, and the next state ``(B, H, N)``.

        Without gradients the recurrence is kept from one step to the next.
        """
        tensors = [*self.parameters(), *self.buffers()]
        stepper = self._memo(tensors, self.rate, lambda: self.recurrence().stepper())
        return stepper.step(x, state)

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Zeros, ``(B, H, N)``, at least float32, complex where the states are."""
        parameter = next(self.parameters())
        wide = torch.promote_types(dtype or parameter.dtype, torch.float32)
        return torch.zeros(
            (batch_size, self.d_model, self.n_states),
            device=device or parameter.device,
            dtype=torch.promote_types(wide, torch.complex64) if self.is_complex else wide,
        )


class TimedSSM(StateSpace):
    """Models with step sizes and decays, of which the latter are shared by groups of channels.

    Parameters: ``inv_dt (H, 1)``, or ``(H, N)``, and ``A_real (S, N)``, before their transforms.

    Args:
        d_model: channels, ``H``; channel ``h`` takes the decays number ``h % S``.
        channels: outputs of each.
        decays: initial ones, ``(S, N)``.
        dt_min: least initial step size.
        dt_max: largest initial step size; they are log-uniform between.
        dt_tie: one step size for all states of a channel.
        dt_transform: from ``inv_dt`` to step sizes, a name in
            :data:`tristate.core.ssm.positive.POSITIVE`.
        real_transform: from ``A_real`` to decays, likewise.

    Raises:
        ValueError: ``S`` does not divide ``d_model``, the range of step sizes is empty, or a
            transform is unknown.
    """

    def __init__(
        self,
        d_model: int,
        channels: int,
        decays: Tensor,
        *,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        dt_tie: bool = True,
        dt_transform: str = "exp",
        real_transform: str = "exp",
    ) -> None:
        super().__init__()
        self.n_ssm, self.n_states = decays.shape
        if d_model % self.n_ssm:
            raise ValueError(f"n_ssm must divide d_model = {d_model}, got {self.n_ssm}")
        self.d_model, self.channels = d_model, channels
        self._dt, self._real = positive(dt_transform), positive(real_transform)
        dt = log_uniform((d_model, 1 if dt_tie else self.n_states), dt_min, dt_max)
        self.inv_dt = time_constant(self._dt.inverse(dt))
        self.A_real = time_constant(self._real.inverse(decays.float().clamp(LEAST)))

    def steps(self) -> Tensor:
        """Step sizes, ``(H, 1)`` or ``(H, N)``, at a rate of 1."""
        return self._dt.value(self._wide(self.inv_dt))

    def decays(self) -> Tensor:
        """Decays, ``(S, N)``, positive."""
        return self._real.value(self._wide(self.A_real))

    def _spread(self, x: Tensor) -> Tensor:
        """``(..., S, N)`` for all channels, ``(..., H, N)``."""
        copies = self.d_model // self.n_ssm
        return x.repeat(*[1] * (x.dim() - 2), copies, 1) if copies > 1 else x

    def _wide(self, x: Tensor) -> Tensor:
        """A parameter as it is computed with: in float32 at least."""
        return x.to(torch.promote_types(x.dtype, torch.float32))
