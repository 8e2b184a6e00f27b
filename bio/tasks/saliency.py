"""What an answer about DNA rests on: letters drawn as large as they count."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from tristate.core.explain.lookups import Lookups
from tristate.core.explain.subject import Subject, Unit

# As in sequence logos.
COLOURS = {"A": "#2c9c45", "C": "#2f6fc4", "G": "#e09a1f", "T": "#d3382f"}
SHOWN = 160  # letters at most
LINE = 40  # letters of a line
STEP, TALL, ROOM = 11.0, 54.0, 15.0  # width of a letter, height of the tallest, of the numbers
GLYPH = 0.72  # height of a capital letter, as a share of its font's size


class LettersSubject(Subject):
    """Ids whose letters may each fade into the mean of the sequence's own letters, shuffled.

    Args:
        ids: ``(L,)``.
        tokens: by id.
        pad_id: of what is no letter.
        model: which looks them up.
        score: of ``S`` rows of ids.
        middle: whether places are told from the middle on, where windows have a site.
    """

    reference = "shuffles of the same letters"
    legend = "Letters above the line speak for the answer, those below against it."
    unit = Unit("letters")

    def __init__(
        self,
        ids: Tensor,
        tokens: Sequence[str],
        pad_id: int,
        model: nn.Module,
        score: Callable[[Tensor], Tensor],
        *,
        middle: bool,
    ) -> None:
        self.letters = [str(tokens[i]) for i in ids.tolist()]
        self.real = ids != pad_id
        self.shape, self.middle = tuple(ids.shape), middle
        self._lookups = Lookups(model, score, ids, ~self.real)

    def score(self, masks: Tensor) -> Tensor:
        """Of the letters under masks ``(S, L)``."""
        return self._lookups(masks)

    def draw(self, shares: Tensor) -> str:
        """The letters that count most and those around them, upwards what speaks for the answer."""
        first, last = self._shown(shares)
        zero = len(self.letters) // 2 if self.middle else 0
        most = float(shares[first:last].abs().max().clamp(min=1e-12))
        drawn = [
            self._line(shares, at, min(at + LINE, last), most, zero)
            for at in range(first, last, LINE)
        ]
        told = ""
        if last - first < int(self.real.sum()):
            told = f"<p>Letters {first + 1:,} to {last:,} of {len(self.letters):,}.</p>"
        return told + "".join(drawn)

    def _shown(self, shares: Tensor) -> tuple[int, int]:
        """Where to begin and end: everything, or so many letters around what counts."""
        begin = int(self.real.int().argmax())
        end = len(self.letters)
        if end - begin <= SHOWN:
            return begin, end
        weight = shares[begin:].abs().cumsum(0)
        within = weight[SHOWN - 1 :] - nn.functional.pad(weight[:-SHOWN], (1, 0))
        return begin + int(within.argmax()), begin + int(within.argmax()) + SHOWN

    def _line(self, shares: Tensor, first: int, last: int, most: float, zero: int) -> str:
        up = TALL * float(shares[first:last].max().clamp(min=0)) / most + 3
        down = TALL * float((-shares[first:last]).max().clamp(min=0)) / most + 3
        parts = [
            f'<line x1="0" x2="{STEP * (last - first):g}" y1="{up:.1f}" y2="{up:.1f}" '
            'stroke="currentColor" stroke-opacity="0.4"/>'
        ]
        for place in range(first, last):
            letter, share = self.letters[place], float(shares[place])
            x, tall = STEP * (place - first + 0.5), TALL * abs(share) / most
            if tall > 0.5:
                below = up if share > 0 else up + tall
                parts.append(
                    f'<text transform="translate({x:.1f} {below:.1f}) '
                    f'scale(1 {tall / (12 * GLYPH):.3f})" text-anchor="middle" font-size="12" '
                    f'font-weight="700" fill="{COLOURS.get(letter, "#888")}">{letter[:1]}</text>'
                )
            count = place - zero + (1 if not self.middle or place >= zero else 0)
            if count % 10 == 0 or (self.middle and place in (zero - 1, zero)):
                sign = "+" if self.middle and count > 0 else ""
                # A number at either end would reach beyond the edge.
                anchor, at = "middle", x
                if place in (first, first + LINE - 1):
                    anchor, at = ("start", 0.0) if place == first else ("end", STEP * LINE)
                parts.append(
                    f'<text x="{at:.1f}" y="{up + down + 12:.1f}" text-anchor="{anchor}" '
                    f'font-size="10" opacity="0.75">{sign}{count}</text>'
                )
        text = "".join(self.letters[first:last])
        return (
            f'<svg viewBox="0 0 {STEP * LINE:g} {up + down + ROOM:.1f}" width="{STEP * LINE:g}" '
            f'role="img" aria-label="shares of {text}" fill="currentColor" '
            'font-family="ui-monospace,DejaVu Sans Mono,monospace">'
            f"{''.join(parts)}</svg>"
        )
