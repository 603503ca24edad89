"""How often two precisions of the same weights choose the same token: no task, no chance involved.

    python -m diffcode.evals.agreement --problems 100

Lines of Python's own library are filled left to right by the first one; then both read what it wrote, and each says
which token it would have put at every place.
"""

import click
from rich.console import Console
from rich.progress import track

from diffcode.canvas import make_block
from diffcode.config import DTYPES, DenoiseOptions, WindowOptions
from diffcode.evals.cuts import library_lines
from diffcode.holes import Hole
from diffcode.infill import Infiller


@click.command(help=__doc__)
@click.option("--problems", default=100, show_default=True, help="How many lines.")
@click.option("--seed", default=1, show_default=True, help="Which lines.")
@click.option("--context", default=256, show_default=True, help="Tokens of context.")
@click.option("--one", type=click.Choice(DTYPES), default="bfloat16", show_default=True)
@click.option("--other", type=click.Choice(DTYPES), default="int8", show_default=True)
def main(problems: int, seed: int, context: int, one: str, other: str) -> None:
    window = WindowOptions(budget=context)
    first, second = (Infiller.from_pretrained(dtype=dtype, window=window, memory=0) for dtype in (one, other))
    same = places = alike = 0
    for line in track(library_lines(problems, seed), "filling", console=Console(stderr=True)):
        fills = [i.fill_with(line.text, [(line.at, line.at)], LEFT_TO_RIGHT, stop="\n") for i in (first, second)]
        alike += fills[0].text == fills[1].text
        written = fills[0].spans[0].tokens
        context_ids = make_block(line.text, [Hole(line.at, line.at)], [""], 0, first.model.tokens, window).context
        chosen = [_chosen(infiller, context_ids, written) for infiller in (first, second)]
        same += sum(a == b for a, b in zip(*chosen, strict=True))
        places += len(written)
    print(f"{one} and {other}: {same} of {places} tokens the same ({same / places:.4f}), {alike} of {problems} fills")


LEFT_TO_RIGHT = DenoiseOptions("leftmost", max_tokens=64)


def _chosen(infiller: Infiller, context: tuple[int, ...], written: tuple[int, ...]) -> list[int]:
    """The likeliest token at every place of `written`, each in the light of those before it."""
    base, _ = infiller.model.session().step(context, written[:-1], (), (), 0, [None] * len(written))
    return [guess.token for guess in base]


if __name__ == "__main__":
    main()
