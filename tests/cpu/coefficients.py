"""Where the polynomials of kernels/cpu/functions.h come from: weighted minimax fits by Remez's exchange, in 50 digits.

`python -m tests.cpu.coefficients` prints them with their errors, ready to be pasted. Needs mpmath.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

GRID = 1500  # points on which extrema are sought, dense towards the ends


class Fit(NamedTuple):
    """p of this degree with the least max |weight (p - target)| on [low, high]."""

    name: str
    degree: int
    low: Any
    high: Any
    target: Callable[[Any], Any]
    weight: Callable[[Any], Any]


def fits(mp: Any) -> Iterator[Fit]:
    """The fits, those of float before those of double; a weight makes an error relative to the function's value."""
    one, tiny = mp.mpf(1), mp.mpf("1e-14")
    half_log2, root = mp.log(2) / 2 * mp.mpf("1.001"), mp.sqrt(2) - 1
    last = (root / (2 + root)) ** 2 * mp.mpf("1.001")

    def exponential(r: Any) -> Any:
        return (mp.expm1(r) - r) / r**2 if abs(r) > tiny else one / 2

    def weight(r: Any) -> Any:
        return max(r**2, tiny) * mp.exp(-r)

    def inverse_tangent(z: Any) -> Any:
        return (2 * mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 2) / z if z > tiny else mp.mpf(2) / 3

    def tangent(s: Any) -> Any:
        return (mp.tanh(mp.sqrt(s)) / mp.sqrt(s) - 1) / s if s > tiny else -one / 3

    def error(s: Any) -> Any:
        return mp.erf(mp.sqrt(s)) / mp.sqrt(s) - 1 if s > tiny else 2 / mp.sqrt(mp.pi) - 1

    for name, degrees, end in (("float", (4, 2, 4, 6, 6), 2), ("double", (10, 6, 10, 12, 19), 4)):
        yield Fit(f"{name} exponential", degrees[0], -half_log2, half_log2, exponential, weight)
        yield Fit(f"{name} logarithm", degrees[1], 0 * one, last, inverse_tangent, lambda z: z / 2)
        yield Fit(f"{name} tangent", degrees[2], 0 * one, mp.mpf("0.3027"), tangent, lambda s: s)
        yield Fit(f"{name} error", degrees[3], 0 * one, mp.mpf("1.001"), error, lambda _: one)
        yield Fit(
            f"{name} tail", degrees[4], -mp.mpf("1.001"), mp.mpf(end),
            lambda t: mp.log(mp.erfc(t + 2)), lambda t: mp.erfc(t + 2),
        )  # fmt: skip


def minimax(mp: Any, fit: Fit) -> tuple[list[Any], Any]:
    """(the coefficients, the constant one first; the largest weighted error on the grid)."""
    unknowns, middle, half = fit.degree + 2, (fit.low + fit.high) / 2, (fit.high - fit.low) / 2
    points = [middle - half * mp.cos(mp.pi * (2 * i + 1) / (2 * unknowns)) for i in range(unknowns)]
    grid = [middle - half * mp.cos(mp.pi * (i + mp.mpf(1) / 3) / GRID) for i in range(GRID)]
    values, weights = [fit.target(x) for x in grid], [fit.weight(x) for x in grid]
    for _ in range(30):
        matrix, right = mp.matrix(unknowns, unknowns), mp.matrix(unknowns, 1)
        for i, x in enumerate(points):
            for k in range(fit.degree + 1):
                matrix[i, k] = x**k
            matrix[i, fit.degree + 1] = (-1) ** i / fit.weight(x)
            right[i] = fit.target(x)
        solution = mp.lu_solve(matrix, right)
        p = [solution[k] for k in range(fit.degree + 1)]
        errors = [w * (mp.polyval(p[::-1], x) - y) for x, y, w in zip(grid, values, weights, strict=True)]
        worst = max(abs(e) for e in errors)
        if worst < abs(solution[fit.degree + 1]) * mp.mpf("1.001"):
            return p, worst
        points = [grid[i] for i in _alternation(errors, unknowns)]
    raise ArithmeticError(f"{fit.name}: no alternation of {unknowns} errors was reached")


def _alternation(errors: list[Any], count: int) -> list[int]:
    """The largest error of each run of one sign; from both ends the smaller ones go until `count` are left."""
    found: list[int] = []
    for i, e in enumerate(errors):
        if found and (errors[found[-1]] > 0) == (e > 0):
            if abs(e) > abs(errors[found[-1]]):
                found[-1] = i
        else:
            found.append(i)
    if len(found) < count:
        raise ArithmeticError(f"only {len(found)} of {count} errors alternate: the degree is too high for the grid")
    while len(found) > count:
        found.pop(0 if abs(errors[found[0]]) < abs(errors[found[-1]]) else -1)
    return found


def table() -> Iterator[tuple[str, list[float], float]]:
    """(name, coefficients as doubles, binary logarithm of the error) of each fit."""
    import mpmath as mp

    with mp.workdps(50):
        for fit in fits(mp):
            p, error = minimax(mp, fit)
            yield fit.name, [float(c) for c in p], float(mp.log(error, 2))


if __name__ == "__main__":
    for title, coefficients, error in table():
        print(f"{title}: 2^{error:.1f}\n  " + ", ".join(map(repr, coefficients)))
