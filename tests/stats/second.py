"""Checks figures of ringroom's statistics against numpy and scipy: a case per line on standard input, a verdict per case on standard output.

Written without a look at the Rust code; what scipy has is scipy's, Holm's correction and the noise floor are put down again from their definition.
"""

import itertools
import json
import sys

try:
    import numpy as np
    from scipy import stats
except ImportError as why:
    print(f"skip: {why}")
    sys.exit(0)


def hodges_lehmann(a, b, axis=-1):
    a, b = np.moveaxis(np.asarray(a), axis, -1), np.moveaxis(np.asarray(b), axis, -1)
    differences = b[..., :, None] - a[..., None, :]
    return np.median(differences.reshape(*differences.shape[:-2], -1), axis=-1)


def permutation_p(a, b):
    """Exact, two-sided, on mid-ranks."""
    ranks = stats.rankdata(np.concatenate([a, b]))
    expected = len(b) * (len(ranks) + 1) / 2

    def distance(_, chosen, axis=-1):
        return np.abs(chosen.sum(axis=axis) - expected)

    sides = (ranks[: len(a)], ranks[len(a) :])
    found = stats.permutation_test(sides, distance, vectorized=True, n_resamples=np.inf, alternative="greater")
    return found.pvalue


def interval(a, b):
    found = stats.bootstrap((a, b), hodges_lehmann, vectorized=True, n_resamples=20_000, method="percentile", random_state=1)
    return found.confidence_interval


def holm(p):
    adjusted = [0.0] * len(p)
    for i, mine in enumerate(p):
        smaller = sorted(p)[: sorted(p).index(mine) + 1]
        adjusted[i] = min(1.0, max((len(p) - rank) * value for rank, value in enumerate(smaller)))
    return adjusted


def floor(values):
    half, places = len(values) // 2, range(len(values))
    sizes = []
    for chosen in itertools.combinations(places, half):
        rest = [values[i] for i in places if i not in chosen]
        sizes.append(abs(float(hodges_lehmann([values[i] for i in chosen], rest))))
    return np.percentile(sizes, 95) / abs(np.median(values))


def close(mine, theirs, tolerance):
    return abs(mine - theirs) <= tolerance


def check(case):
    a, b = np.array(case["a"]), np.array(case["b"])
    wrong = []
    if not close(hodges_lehmann(a, b), case["shift"], 1e-9):
        wrong.append("shift")
    if not close(permutation_p(a, b), case["p"], 1e-9):
        wrong.append("p")
    if len(set(case["a"] + case["b"])) == len(a) + len(b):
        if not close(stats.mannwhitneyu(a, b, method="exact").pvalue, case["p"], 1e-9):
            wrong.append("p of mannwhitneyu")
    low, high = interval(a, b)
    # Both are drawn: they agree up to a part of their width. Between sides with equal values the shift jumps, and so do the ends, by a step.
    tolerance = 0.08 * (high - low) + case["step"] + 1e-9
    if not (close(low, case["low"], tolerance) and close(high, case["high"], tolerance)):
        wrong.append(f"interval {low} {high}")
    if not close(floor(case["a"]), case["floor"], 1e-9):
        wrong.append("floor")
    if not all(close(x, y, 1e-12) for x, y in zip(holm(case["family"]), case["holm"], strict=True)):
        wrong.append("holm")
    return wrong


def main():
    for line in sys.stdin:
        case = json.loads(line)
        wrong = check(case)
        print(f"{'wrong' if wrong else 'ok'} {', '.join(wrong)} {line.strip() if wrong else ''}")


main()
