"""Token by token generation: https://github.com/state-spaces/mamba, ``utils/generation.py``."""

from collections import namedtuple
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Generated = namedtuple("Generated", ["sequences", "scores"])


@dataclass
class InferenceParams:
    """What is kept between the calls of one generation.

    Attributes:
        max_seqlen: the longest sequence there will be.
        max_batch_size: the most rows there will be.
        seqlen_offset: positions read so far; 0 starts afresh.
        batch_size_offset: first row, for mixers that keep more rows than they are given.
        key_value_memory_dict: each layer's states, by its number.
        lengths_per_sample: positions read so far in each row, ``(B,)``.
    """

    max_seqlen: int
    max_batch_size: int
    seqlen_offset: int = 0
    batch_size_offset: int = 0
    key_value_memory_dict: dict[int, Any] = field(default_factory=dict)
    lengths_per_sample: Tensor | None = None

    def reset(self, max_seqlen: int, max_batch_size: int) -> None:
        """Start afresh; the states are kept, and overwritten by the first call."""
        self.max_seqlen, self.max_batch_size, self.seqlen_offset = max_seqlen, max_batch_size, 0
        if self.lengths_per_sample is not None:
            self.lengths_per_sample.zero_()


class GenerationMixin:
    """Adds :meth:`generate` to a model of tokens.

    The model is called with ``input_ids (B, L)``, ``position_ids``, ``inference_params`` and
    ``num_last_tokens``, and returns an object with ``logits (B, num_last_tokens, vocabulary)``.
    """

    def allocate_inference_cache(
        self, batch_size: int, max_seqlen: int, dtype: torch.dtype | None = None, **kwargs: Any
    ) -> Any:
        """The model's states before the first position; each model has its own."""
        raise NotImplementedError(f"{type(self).__name__} keeps no states")

    @torch.inference_mode()
    def generate(
        self,
        input_ids: Tensor,
        max_length: int,
        top_k: int = 1,
        top_p: float = 0.0,
        min_p: float = 0.0,
        temperature: float = 1.0,
        return_dict_in_generate: bool = False,
        output_scores: bool = False,
        *,
        eos_token_id: int | None = None,
    ) -> Any:
        """Continue ``input_ids (B, L)`` to ``max_length`` tokens, or until all rows have ended.

        Args:
            input_ids: the beginnings, of one length.
            max_length: tokens in all.
            top_k: choose among so many of the likeliest; 1 takes the likeliest, 0 is no limit.
            top_p: and among the fewest that have this probability together; 0 is no limit.
            min_p: and among those with this part of the likeliest one's; 0 is no limit.
            temperature: divides the logits.
            return_dict_in_generate: return an object with ``sequences`` and ``scores``.
            output_scores: with the logits of each step as ``scores``; None otherwise.
            eos_token_id: ends a row.

        Returns:
            The tokens, ``(B, at most max_length)``, or the object.
        """
        state = InferenceParams(max_seqlen=max_length, max_batch_size=input_ids.shape[0])
        sequences, scores, new = input_ids, [], input_ids
        ended = torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
        while sequences.shape[1] < max_length and not bool(ended.all()):
            position = torch.full_like(new, state.seqlen_offset) if state.seqlen_offset else None
            logits = self(  # pyright: ignore[reportCallIssue]
                new, position_ids=position, inference_params=state, num_last_tokens=1
            ).logits[:, -1]
            state.seqlen_offset += new.shape[1]
            scores.append(logits)
            new = sample(logits, top_k, top_p, min_p, temperature)[:, None]
            sequences = torch.cat([sequences, new], 1)
            if eos_token_id is not None:
                ended = ended | (new[:, 0] == eos_token_id)
        if not return_dict_in_generate:
            return sequences
        return Generated(sequences, tuple(scores) if output_scores else None)


def sample(
    logits: Tensor, top_k: int = 1, top_p: float = 0.0, min_p: float = 0.0, temperature: float = 1.0
) -> Tensor:
    """One token a row, ``(B,)``, from ``logits (B, vocabulary)``; see :meth:`GenerationMixin`."""
    if top_k == 1:
        return logits.argmax(-1)
    chances, tokens = (logits.float() / temperature).softmax(-1).sort(descending=True)
    if top_k > 0:
        chances[:, top_k:] = 0
    if top_p > 0:
        chances[chances.cumsum(-1) - chances >= top_p * chances.sum(-1, keepdim=True)] = 0
    if min_p > 0:
        chances[chances < min_p * chances[:, :1]] = 0
    return tokens.gather(1, torch.multinomial(chances, 1))[:, 0]
