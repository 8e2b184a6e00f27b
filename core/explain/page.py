"""What was found, as the sections of a page: pictures, each with a sentence about it."""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tristate.core.explain.calls import Call
from tristate.core.explain.layers import Layer, layers_of
from tristate.core.explain.pictures import Axis, even_axis, framed, heat, lines, log_axis
from tristate.core.explain.response import Response, half_lives, impulse_response
from tristate.core.explain.subject import Subject, Unit, saliency
from tristate.core.training.figures import grid, table
from tristate.core.training.report import Section

COLUMNS = 400  # of a matrix that is drawn whole; of a larger one every so many
CHANNELS = 4  # whose responses are drawn
DEEPEST = -60.0  # dB, of a frequency response


class Memory(NamedTuple):
    """Half-lives of the channels of one call, over all items."""

    layer: int
    kind: str
    op: str
    lives: Tensor  # (S, channels) in positions: of S impulses; one where the op is invariant
    invariant: bool


def saliency_section(subjects: Sequence[Subject]) -> Section:
    """What each subject's answer rests on."""
    title = "What the answers rest on"
    if not subjects:
        return Section(title, "<p>The task doesn't say how its items are varied and drawn.</p>")
    parts = [
        f"<p>{subjects[0].legend} Each place is compared with {subjects[0].reference}; shares are "
        "integrated gradients of the answer's lead over all others (Sundararajan et al. 2017).</p>"
    ]
    for subject in subjects:
        shares, gain = saliency(subject)
        parts.append(
            f"<h3>{subject.caption}</h3>{subject.draw(shares)}"
            f'<p class="subtitle">Shares sum up to {float(shares.sum()):.2f}, the lead gains '
            f"{gain:.2f} over the reference.</p>"
        )
    return Section(title, "".join(parts))


@torch.no_grad()
def layer_sections(
    model: nn.Module,
    runs: Sequence[Callable[[], Any]],
    subject: Subject | None,
    chosen: int | None = None,
) -> list[Section]:
    """How long each layer remembers, and what each reads.

    Args:
        model: whose layers.
        runs: each passes an item through the model; the first item's pass is drawn.
        subject: of the first item, where there is one.
        chosen: index of the one layer to draw; None for all.

    Raises:
        IndexError: there is no such layer.
    """
    unit = subject.unit if subject is not None else Unit()
    passes = [layers_of(model, run) for run in runs]
    layers = passes[0]
    if chosen is not None and not 0 <= chosen < len(layers):
        raise IndexError(
            f"there is no layer {chosen}: this model has "
            + (f"the layers 0 to {len(layers) - 1}" if layers else "none")
        )
    if not layers:
        return [Section("Layers", f"<p>{_unexplained(type(model).__name__)}</p>")]
    indices = range(len(layers)) if chosen is None else [chosen]
    memories = [memory for index in indices for memory in _memories(passes, index)]
    sections = [_memory_section(memories, unit)] if memories else []
    for index in indices:
        drawn = [m for m in memories if m.layer == index]
        sections.append(_layer_section(index, layers[index], drawn, unit, subject))
    return sections


def _memories(passes: Sequence[list[Layer]], index: int) -> list[Memory]:
    found = []
    layer = passes[0][index]
    for number, call in enumerate(layer.calls):
        same = [one[index].calls[number] for one in passes]
        lives = [half_lives(c) for c in (same[:1] if call.invariant else same)]
        joined = torch.cat([x.reshape(len(x), -1) for x in lives])
        found.append(Memory(index, layer.kind, call.op.name, joined, call.invariant))
    return found


def _memory_section(memories: Sequence[Memory], unit: Unit) -> Section:
    scale = unit.step
    series, rows, medians = {}, [], []
    for memory in memories:
        name = f"{memory.layer} {memory.op if _several(memories, memory) else memory.kind}"
        middle = torch.nanmedian(memory.lives, 0).values * scale
        middle = middle[middle.isfinite()].sort().values
        if not len(middle):
            continue
        medians.append((name, middle))
        low, high = (torch.nanquantile(memory.lives, q, dim=0) for q in (0.1, 0.9))
        varies = "no" if memory.invariant else f"x {float((high / low).nanmedian()):.1f}"
        spread = [float(middle[0]), float(middle.median()), float(middle[-1])]
        told = [f"{value:.3g}" for value in spread]
        rows.append([name, str(memory.lives.shape[1]), *told, varies])
    if not medians:
        return Section("How long layers remember", "<p>No layer answers an impulse.</p>")
    values = torch.cat([middle for _, middle in medians])
    low, high = float(values.min()), float(values.max())
    axis, first, last = log_axis(f"half-life, {unit.name}", low, high)
    for name, middle in medians:
        places = torch.linspace(0, 1, len(middle)).tolist() if len(middle) > 1 else [0.0, 1.0]
        heights = ((middle.log2() - first) / (last - first)).tolist()
        heights = heights if len(middle) > 1 else heights * 2
        series[name] = list(zip(places, heights, strict=True))
    share = Axis("share of a layer's channels", [(i / 4, f"{25 * i} %") for i in range(5)])
    chart = lines(series, share, axis, "half-life of the channels")
    words = (
        "<p>Each line is a layer: its channels from the shortest to the longest memory. After one "
        "half-life half of the energy of what an input sets off in a channel has come out.</p>"
    )
    head = ("layer", "channels", "shortest", "median", "longest", "varies")
    note = (
        f'<p class="subtitle">In {unit.name}. A channel whose memory depends on the input has a '
        "half-life for each: drawn is the median, and the last column tells how many times longer "
        "the longest tenth lasts than the shortest.</p>"
    )
    return Section("How long layers remember", words + chart + table(head, rows) + note)


def _several(memories: Sequence[Memory], memory: Memory) -> bool:
    """Whether a layer calls more than one op."""
    return sum(m.layer == memory.layer for m in memories) > 1


def _layer_section(
    index: int, layer: Layer, memories: Sequence[Memory], unit: Unit, subject: Subject | None
) -> Section:
    title = f"Layer {index}: {layer.kind}"
    if not layer.calls:
        return Section(title, f"<p>{_unexplained(layer.kind)}</p>")
    parts = []
    for call, memory in zip(layer.calls, memories, strict=True):
        if len(layer.calls) > 1:
            parts.append(f"<h3>{escape(call.op.name)}</h3>")
        lives = torch.nanmedian(memory.lives, 0).values
        parts.append(
            _responses(call, lives, unit) if call.invariant else _matrix(call, lives, unit, subject)
        )
    return Section(title, "".join(parts))


def _unexplained(kind: str) -> str:
    return (
        f"{escape(kind)} can't be explained: it calls none of the ops that mix positions, so there "
        "is neither a matrix nor a response to draw."
    )


def _matrix(call: Call, lives: Tensor, unit: Unit, subject: Subject | None) -> str:
    """Who reads whom: the mean over the channels, and channels of short and long memory."""
    length = call.length
    every = -(-length // COLUMNS)
    columns = list(range(0, length, every))
    parts = [call.matrix(p, columns)[0].abs() for p in range(len(call.values))]
    # Both directions of time, side by side in one matrix.
    weights = sum(parts).flatten(0, -3) if parts[0].dim() > 2 else sum(parts)[None]  # pyright: ignore
    rows = weights[:, :: max(1, weights.shape[1] // len(columns))]
    mean = rows.mean(0)
    extent = length * unit.step
    reads, read = even_axis(f"read from, {unit.name}", extent), Axis(f"read by, {unit.name}")
    read = Axis(read.label, [(1 - place, text) for place, text in reads.ticks])
    skipped = f" Of {length:,} positions every {every}th is drawn." if every > 1 else ""
    html = (
        "<p>Each row is a position, and bright is what it reads: how much the layer weighs every "
        "position to make this one, mean over all channels without sign, each row on its own scale."
        f"{skipped}</p>" + framed(_scaled(mean), reads, read, "who reads whom")
    )
    reading = subject.reading(mean) if subject is not None and every == 1 else None
    if reading is not None:
        html += f"<p>{reading[1]}</p>{reading[0]}"
    if len(rows) > 3:
        order = lives.nan_to_num(-1).argsort()
        chosen = [("short", order[0]), ("median", order[len(order) // 2]), ("long", order[-1])]
        cells = [
            (framed(_scaled(rows[c]), Axis(""), Axis(""), f"{name} memory"), f"{name} memory")
            for name, c in chosen
        ]
        html += "<p>Single channels, by their memory:</p>" + grid(cells, 130)
    return html


def _scaled(weights: Tensor) -> Tensor:
    """Weights as colours, each row by its largest."""
    return heat((weights / weights.amax(-1, keepdim=True).clamp(min=1e-30)).float() ** 0.5)


def _responses(call: Call, lives: Tensor, unit: Unit) -> str:
    """Impulse and frequency responses of channels from the shortest to the longest memory."""
    response = impulse_response(call)
    taps = response.taps.real if response.taps.is_complex() else response.taps
    taps = taps.reshape(-1, taps.shape[-1]).float()
    order = lives.nan_to_num(-1).argsort()
    places = torch.linspace(0, len(order) - 1, min(CHANNELS, len(order))).round().long()
    chosen = order[places.unique()]
    drawn = Response(taps[chosen], response.origin)
    told = [f"{float(lives[c]) * unit.step:.3g}" for c in chosen]
    pairs = zip(chosen.tolist(), told, strict=True)
    names = [f"channel {c}: {life} {unit.name}" for c, life in pairs]
    return (
        "<p>The same at every position: what one input sets off in a channel as time goes on, in "
        "channels from the shortest memory (above) to the longest; their half-lives stand beside "
        "them.</p>"
        + _impulse_chart(drawn, told, unit)
        + "<p>The same channels by frequency: what passes (0 dB), and what is damped.</p>"
        + _frequency_chart(drawn, names, unit)
    )


def _impulse_chart(response: Response, lives: Sequence[str], unit: Unit) -> str:
    """Responses one below the other, each to its own scale, over the logarithm of the lag."""
    taps, origin = response
    ahead = _reach(taps[:, origin:])
    back = _reach(taps[:, :origin].flip(-1)) if origin else 0
    shown = taps[:, origin - back : origin + ahead]
    shown = shown / shown.abs().amax(-1, keepdim=True).clamp(min=1e-30)
    lags = torch.arange(-back, ahead)
    warped = lags.sign() * (1 + lags.abs()).float().log2()
    low, high = float(warped[0]), max(float(warped[-1]), float(warped[0]) + 1)
    across = ((warped - low) / (high - low)).tolist()
    rows, series, marks = len(shown), {}, []
    for index, (life, row) in enumerate(zip(lives, shown, strict=True)):
        middle = 1 - (index + 0.5) / rows
        heights = (middle + 0.46 / rows * row).tolist()
        series[f"{index} {life}"] = list(zip(across, heights, strict=True))
        marks.append((middle, life))
    ticks = [
        ((sign * math.log2(1 + lag) - low) / (high - low), f"{sign * lag * unit.step:.3g}")
        for sign, most in ((-1, back), (1, ahead))
        for lag in (0, 1, 4, 16, 64, 256, 1024, 4096, 16384)
        if lag < most and (lag or sign > 0)
    ]
    x, y = Axis(f"lag, {unit.name}", ticks), Axis(f"half-life, {unit.name}", marks)
    return lines(series, x, y, "response to an impulse", legend=False)


def _reach(taps: Tensor) -> int:
    """Lags that hold 99 % of each row's energy, and 16 at least where there are as many."""
    energy = taps.square()
    spent = energy.cumsum(-1) / energy.sum(-1, keepdim=True).clamp(min=1e-30)
    return min(taps.shape[1], max(16, int((spent < 0.99).sum(-1).max()) + 1))


def _frequency_chart(response: Response, names: Sequence[str], unit: Unit) -> str:
    taps, origin = response
    # Where a response isn't over at the end of the sequence, cutting it off would make ripples.
    lags = (torch.arange(taps.shape[1]) - origin).abs()
    late = (2 * lags / max(1, int(lags.max())) - 1).clamp(min=0)
    faded = taps * (math.pi / 2 * late).cos().square()
    frequencies, gains = Response(faded, origin).spectrum()
    decibels = 20 * (gains / gains.amax(-1, keepdim=True).clamp(min=1e-30)).clamp(min=1e-9).log10()
    # As many points as a drawing has pixels.
    step = max(1, len(frequencies) // 256)
    heights = (1 - decibels / DEEPEST).clamp(0, 1)[:, ::step]
    across = (2 * frequencies[::step]).tolist()
    series = {
        name: list(zip(across, row.tolist(), strict=True))
        for name, row in zip(names, heights, strict=True)
    }
    half = 0.5 / unit.step if unit.timed else 0.5
    x = even_axis("Hz" if unit.timed else "cycles a position", half)
    y = Axis("dB", [(1 - mark / DEEPEST, f"{mark:g}") for mark in (0, -20, -40, -60)])
    return lines(series, x, y, "response by frequency")
