"""The learning rate over a run: warm-up, a plateau, a fall to zero (WSD, Hu et al. 2024).

Unlike a cosine it needs no length while it runs: a run may be made longer up to where the fall began.
"""


def rate_at(step: int, done: float, warmup: int, cooldown: float) -> float:
    """Factor on the peak rate at `step`, counted from 0, with the share `done` of the run behind it."""
    rising = min(1.0, (step + 1) / (warmup + 1))
    falling = min(1.0, max(0.0, (1 - done) / cooldown)) if cooldown > 0 else 1.0
    return min(rising, falling)
