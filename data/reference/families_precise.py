"""Log-densities of continuous families and their derivatives to the third order, to 17 digits.

Written out in mpmath from the textbook formulas, at ordinary and at extreme points, with numerical
differentiation in 45-digit arithmetic. Writes families_precise.json, which
tests/test_families_continuous.py reads. Run: python data/reference/families_precise.py
"""

# ruff: noqa: D103

import itertools
import json
from pathlib import Path

import mpmath as mp

mp.mp.dps = 45


def normal(z):
    return -(z**2) / 2 - mp.log(2 * mp.pi) / 2


def expit(x):
    return 1 / (1 + mp.exp(-x))


def logistic(y, m, s):
    z = (y - m) / mp.exp(s)
    return -z - 2 * mp.log(1 + mp.exp(-z)) - s


def gumbel(y, m, s):
    z = (y - m) / mp.exp(s)
    return -z - mp.exp(-z) - s


def gumbel_min(y, m, s):
    return gumbel(-y, -m, s)


def cauchy(y, m, s):
    return -mp.log(mp.pi) - s - mp.log(1 + ((y - m) / mp.exp(s)) ** 2)


def student_t(y, m, s, d):
    df, z = 1 + mp.exp(d), (y - m) / mp.exp(s)
    constant = mp.loggamma((df + 1) / 2) - mp.loggamma(df / 2) - mp.log(df * mp.pi) / 2
    return constant - s - (df + 1) / 2 * mp.log(1 + z**2 / df)


def shash(y, m, s, e, t):
    tail = mp.exp(t)
    z = (y - m) / (mp.exp(s) * tail)
    u = mp.sinh(tail * mp.asinh(z) - e)
    return mp.log(1 + u**2) / 2 + normal(u) - s - mp.log(1 + z**2) / 2


def skewnormal(y, m, s, a):
    z = (y - m) / mp.exp(s)
    return mp.log(2) - s + normal(z) + mp.log(mp.erfc(-a * z / mp.sqrt(2)) / 2)


def lognormal(y, m, s):
    return normal((mp.log(y) - m) / mp.exp(s)) - s - mp.log(y)


def loglogistic(y, m, s):
    return logistic(mp.log(y), m, s) - mp.log(y)


def weibull(y, s, k):
    k = mp.exp(k)
    z = y / mp.exp(s)
    return mp.log(k) - s + (k - 1) * mp.log(z) - z**k


def inverse_gaussian(y, m, d):
    m, d = mp.exp(m), mp.exp(d)
    return -mp.log(2 * mp.pi * d * y**3) / 2 - (y - m) ** 2 / (2 * d * m**2 * y)


def inverse_gamma(y, s, a):
    a = mp.exp(a)
    return a * s - mp.loggamma(a) - (a + 1) * mp.log(y) - mp.exp(s) / y


def gev(y, m, s, k):
    z = (y - m) / mp.exp(s)
    t = z if k == 0 else mp.log1p(k * z) / k
    return -s - (1 + k) * t - mp.exp(-t)


def gpd(y, s, k):
    z = y / mp.exp(s)
    t = z if k == 0 else mp.log1p(k * z) / k
    return -s - (1 + k) * t


def beta(y, m, p):
    m, p = expit(m), mp.exp(p)
    a, b = m * p, (1 - m) * p
    norm = mp.loggamma(p) - mp.loggamma(a) - mp.loggamma(b)
    return norm + (a - 1) * mp.log(y) + (b - 1) * mp.log(1 - y)


def von_mises(y, m, k):
    k = mp.exp(k)
    return k * mp.cos(y - 2 * mp.atan(m)) - mp.log(2 * mp.pi * mp.besseli(0, k))


def bccg(y, m, s, v):
    u, s = mp.log(y) - m, mp.exp(s)
    z = u / s if v == 0 else mp.expm1(v * u) / (v * s)
    kept = 0 if v == 0 else mp.log(mp.erfc(-1 / (s * abs(v)) / mp.sqrt(2)) / 2)
    return v * u - mp.log(y * s) + normal(z) - kept


def tweedie(y, m, d, p):
    m, d, p = mp.exp(m), mp.exp(d), 1 + expit(p)
    if y == 0:
        return -(m ** (2 - p)) / (d * (2 - p))
    a, peak = (2 - p) / (p - 1), y ** (2 - p) / (d * (2 - p))
    width = 30 * mp.sqrt(peak) + 60
    step = a * mp.log(y / (p - 1)) - (1 + a) * mp.log(d) - mp.log(2 - p)
    terms = [
        mp.exp(j * step - mp.loggamma(j + 1) - mp.loggamma(j * a))
        for j in range(max(1, int(peak - width)), int(peak + width))
    ]
    rest = (y * m ** (1 - p) / (1 - p) - m ** (2 - p) / (2 - p)) / d
    return mp.log(mp.fsum(terms)) - mp.log(y) + rest


POINTS = [
    *((logistic, p) for p in ((0.3, 0.3, -0.5), (900.0, 0.0, 0.0), (-900.0, 0.0, 0.2))),
    *((gumbel, p) for p in ((0.4, 0.4, 0.1), (30.0, 0.0, 0.0), (-5.0, 0.0, 0.0))),
    *((gumbel_min, p) for p in ((0.4, 0.1, 0.1), (-30.0, 0.0, 0.0))),
    *((cauchy, p) for p in ((0.0, 0.0, 0.0), (1e6, 0.0, -1.0))),
    *((student_t, p) for p in (
        (0.5, 0.5, 0.2, 1.0), (0.7, 0.1, -0.3, 20.0), (2.0, 0.0, 0.0, 30.0),
        (1e6, 0.0, 0.0, 1.5), (0.3, 0.0, 0.4, -6.0), (-1.2, 0.3, 0.1, 2.9))),
    *((shash, p) for p in (
        (0.2, 0.2, 0.3, 0.0, 0.0), (1.0, 0.2, -0.3, 0.7, 0.5), (-300.0, 0.0, 0.0, 0.3, -1.0),
        (1e6, 1e6, 12.0, -0.5, 0.2))),
    *((skewnormal, p) for p in (
        (0.4, 0.1, 0.2, 0.0), (-3.0, 0.0, 0.0, 4.0), (0.5, 0.5, 0.0, 2.0))),
    *((lognormal, p) for p in ((1.5, 0.3, -0.5), (1e-6, -13.0, 0.2))),
    *((loglogistic, p) for p in ((1.5, 0.3, -0.5), (1e6, 13.8, -2.0))),
    *((weibull, p) for p in ((1.5, 0.3, 0.5), (1e-6, 0.0, -0.7), (2.0, 0.7, 3.0))),
    *((inverse_gaussian, p) for p in (
        (1.0, 0.0, -0.3), (2.5, 0.5, 1.0), (1.00001, 0.0, -24.0), (1e6, 13.8, -14.0))),
    *((inverse_gamma, p) for p in ((0.7, 0.2, 0.5), (1.0001, 18.0, 18.0), (1e-6, -13.0, 1.0))),
    *((gev, p) for p in (
        (0.5, 0.2, 0.1, 0.0), (0.5, 0.2, 0.1, 1e-9), (1.7, 0.2, 0.1, 0.0833),
        (1.7, 0.2, 0.1, 0.0834), (-2.0, 0.0, 0.0, 0.3), (3.0, 0.0, 0.5, -0.4),
        (1.2e6, 1e6, 11.0, 0.2))),
    *((gpd, p) for p in (
        (0.0, 0.2, 0.1), (0.8, 0.2, 0.0), (0.8, 0.2, 1e-8), (50.0, 0.0, 0.4), (2.0, 1.0, -0.3))),
    *((beta, p) for p in (
        (0.3, -0.5, 1.2), (0.5498, 0.2, 12.0), (1e-12, -0.5, -3.0), (0.999999, 1.0, -4.0),
        (0.02, -4.0, 5.0), (0.5, 0.0, 0.0))),
    *((von_mises, p) for p in (
        (0.0, 0.0, 0.5), (1.0, 0.4, -9.0), (0.8, 0.42, 13.0), (3.0, -0.5, 3.91),
        (-2.5, 1.0, 3.92))),
    *((bccg, p) for p in (
        (1.5, 0.2, -1.0, 0.0), (1.5, 0.2, -1.0, 1e-9), (2.5, 0.2, -1.2, -0.5),
        (0.4, 0.1, -0.3, 1.4), (1.2, 0.2, -1.5, 0.4))),
    *((tweedie, p) for p in (
        (1.0, 0.3, -0.2, 0.1), (0.0, 0.3, -0.2, 0.1), (5.0, 1.0, -3.0, 0.5), (0.01, 0.3, 1.0, -2.0),
        (3.0, 1.0, -5.0, 0.0), (1e-4, -9.0, 0.0, 2.0), (2.0, 0.5, 0.0, -5.0), (2.0, 0.5, 0.0, 5.0),
    )),
]  # fmt: skip


def derivatives(density, y, eta):
    """Value, gradient, packed upper triangle of -Hessian, and its derivatives."""
    y, eta = mp.mpf(y), [mp.mpf(e) for e in eta]

    def at(order):
        counts = tuple(order.count(u) for u in range(len(eta)))
        return mp.diff(lambda *e: density(y, *e), eta, counts) if order else density(y, *eta)

    units = range(len(eta))
    pairs = list(itertools.combinations_with_replacement(units, 2))
    return {
        "value": float(at(())),
        "gradient": [float(at((u,))) for u in units],
        "W": [float(-at(pair)) for pair in pairs],
        "third": [[float(-at((*pair, u))) for u in units] for pair in pairs],
    }


def main():
    points = [
        {"family": density.__name__, "y": y, "eta": list(eta), **derivatives(density, y, eta)}
        for density, (y, *eta) in POINTS
    ]
    origin = "mpmath 45 digits, data/reference/families_precise.py"
    text = json.dumps({"origin": origin, "points": points}, separators=(",", ":"))
    Path(__file__).with_suffix(".json").write_text(text)


if __name__ == "__main__":
    main()
