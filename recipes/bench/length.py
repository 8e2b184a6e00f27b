"""Time per token over length: a scan's stays, attention's grows."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from tristate.core.training import figures
from tristate.recipes.bench.cases import Case
from tristate.recipes.bench.selective import op, problem

OP = "length"
LENGTHS = tuple(1 << k for k in (10, 12, 14, 16, 18, 20))
CHANNELS, STATES = 32, 16
MOST_IN_QUICK = 1 << 16
# Beyond it attention takes seconds, and soon minutes and hours: its line stops, and it is said.
MOST_FOR_ATTENTION = 1 << 14

Row = Mapping[str, Any]


def cases(quick: bool) -> Iterator[Case]:
    """One case a length; attention has one head as wide as the scan has channels."""
    for length in LENGTHS:
        if quick and length > MOST_IN_QUICK:
            continue
        peers = {"PyTorch, causal attention": attention} if length <= MOST_FOR_ATTENTION else {}
        yield Case(
            f"{OP}, selective_scan over {length:,} steps",
            {"B": 1, "D": CHANNELS, "L": length, "N": STATES},
            problem(1, CHANNELS, length, STATES, 1),
            op,
            peers,
            CHANNELS * length * STATES,
        )


def attention(u: Tensor, delta: Tensor, z: Tensor, **_: Tensor) -> Tensor:
    """Of each position to all before it."""
    queries, keys, values = (x.transpose(1, 2)[:, None] for x in (u, delta, z))
    return scaled_dot_product_attention(queries, keys, values, is_causal=True)


def series(rows: Sequence[Row]) -> dict[str, list[tuple[float, float]]]:
    """Nanoseconds per token by length, of ours and of each peer, from rows of these cases."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row["what"].startswith(OP):
            length = row["shape"]["L"]
            for name, ms in {"selective scan": row["ms"], **row["peers"]}.items():
                threads = f"{row['threads']} thread{'s' if row['threads'] > 1 else ''}"
                line = found.setdefault(f"{name}, {row['direction']}, {threads}", [])
                line.append((length, 1e6 * ms / length))
    return found


def growth(rows: Sequence[Row]) -> list[str]:
    """A sentence for each line: what a token takes at the longest, against the shortest.

    Of a line that stops before the others it says so, and what the longest would take.
    """
    lines = {name: points for name, points in series(rows).items() if len(points) > 1}
    end = max((int(points[-1][0]) for points in lines.values()), default=0)
    sentences = []
    for name, ((shortest, first), *_, (longest, last)) in lines.items():
        said = (
            f"{name}: {last / first:.2f} times as long per token at {int(longest):,} steps as at "
            f"{int(shortest):,}"
        )
        if longest < end:
            # A token looks at all before it.
            seconds = 1e-9 * last * end * (end / longest)
            said += f"; not timed beyond: a call at {end:,} would take some {seconds:,.0f} s"
        sentences.append(said)
    return sentences


def plot(rows: Sequence[Row]) -> bytes:
    """The lines as a PNG; the name of one that stops before the others says where."""
    lines = series(rows)
    end = max(points[-1][0] for points in lines.values())
    return figures.lines(
        {
            name if points[-1][0] == end else f"{name}, to {int(points[-1][0]):,} steps": points
            for name, points in lines.items()
        },
        x="steps",
        y="nanoseconds per token",
        title=f"{CHANNELS} channels: a selective scan of {STATES} states, and attention, float32",
    )
