"""The order of a listening test's sounds in Python, which its page computes in JavaScript. Not a test itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence


def _draws(seed: int) -> Iterator[float]:
    """Numbers in (0, 1): xorshift32 (G. Marsaglia, Journal of Statistical Software 8(14), 2003)."""
    state = seed * 2654435761 % 2**32 or 1
    while True:
        state ^= state << 13 & 0xFFFFFFFF
        state ^= state >> 17
        state ^= state << 5 & 0xFFFFFFFF
        yield state / 2**32


def _shuffled(items: Iterable, draws: Iterator[float]) -> list:
    items = list(items)
    for last in range(len(items) - 1, 0, -1):
        other = int(next(draws) * (last + 1))
        items[last], items[other] = items[other], items[last]
    return items


def trial_order(trials: Sequence[dict], n: int, seed: int) -> list[int]:
    """Places of the ``n`` sounds that a participant hears, in their order; the page computes the same.

    Methods take turns, so that each has as many sounds as the others, and a method's turn takes the
    sound whose clip was taken least so far; then everything is shuffled.

    Parameters
    ----------
    trials : sequence of dict
        ``method`` and ``clip`` of every sound, as in the page's data.
    n : int
        Fewer where there are no more.
    seed : int
        Of the participant, as in the answers.
    """
    draws = _draws(seed)
    queues: dict[str, list[int]] = {}
    for place in _shuffled(range(len(trials)), draws):
        queues.setdefault(trials[place]["method"], []).append(place)
    used, chosen = Counter(), []
    while len(chosen) < min(n, len(trials)):
        for queue in queues.values():
            if queue and len(chosen) < n:
                place = min(queue, key=lambda place: used[trials[place]["clip"]])
                queue.remove(place)
                used[trials[place]["clip"]] += 1
                chosen.append(place)
    return _shuffled(chosen, draws)
