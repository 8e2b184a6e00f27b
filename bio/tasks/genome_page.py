"""A language model of a genome, window by window, as a part of a report."""

from collections.abc import Mapping

from torch import Tensor

from tristate.core.training.curves import Points, line_chart
from tristate.core.training.figures import table


def bits_page(windows: Tensor, baselines: Mapping[int, float]) -> str:
    """Bits per base along the tested part as a chart, and Markov models beside it as a table.

    Args:
        windows: bits and counted bases of each window, ``(M, 2)``, in the order of the genome.
        baselines: bits per base of Markov models by order; may be empty.
    """
    counted = windows[windows[:, 1] > 0].double()
    if not len(counted):
        return "<p>No base was tested.</p>"
    bits, bases = counted.unbind(1)
    places = (bases.cumsum(0) - bases / 2).tolist()
    series: dict[str, Points] = {
        "model": list(zip(places, (bits / bases).tolist(), strict=True)),
    }
    total, mean = float(bases.sum()), float(bits.sum() / bases.sum())
    rows = [["this model", f"{mean:.4f}", ""]]
    if baselines:
        best = min(baselines, key=lambda order: baselines[order])
        series["markov"] = [(0.0, baselines[best]), (total, baselines[best])]
        rows += [
            [f"Markov, order {order}", f"{value:.4f}", f"{mean - value:+.4f}"]
            for order, value in baselines.items()
        ]
    legend = '<span class="key model">this model</span>'
    if baselines:
        legend += '<span class="key markov">best Markov model</span>'
    chart = line_chart("bits per base", series, "tested base")
    return (
        f"<figure><figcaption><span>bits per base</span>{legend}</figcaption>{chart}</figure>"
        + table(("model", "bits per base", "difference"), rows)
        + "<p>2 bits are chance. Markov models are counted on all bases that are not tested, with "
        "one added to each count.</p>"
    )
