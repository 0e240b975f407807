#!/usr/bin/env python3
"""The coefficients of src/nn/gelu.c: erf(z) = z P(z^2) / Q(z^2) for z from 0 to 4, the largest error made small by
reweighted least squares. Prints P, Q and the error of the fit. Needs NumPy."""
import math

import numpy as np

DEGREE, LAST = 5, 4.0
z = LAST * (0.5 - 0.5 * np.cos(np.pi * (np.arange(4000) + 0.5) / 4000))
u = (z / LAST) ** 2  # from 0 to 1, for well-conditioned equations
f = np.array([math.erf(v) / v for v in z])
weight, q, best = np.ones_like(z), np.ones_like(z), (np.inf, None, None)
powers = np.arange(DEGREE + 1)
for _ in range(60):
    row = (weight * z / q)[:, None]
    columns = np.concatenate([u[:, None] ** powers, -f[:, None] * u[:, None] ** powers[1:]], 1)
    solution, *_ = np.linalg.lstsq(columns * row, f * row[:, 0], rcond=None)
    p_of, q_of = solution[:DEGREE + 1], np.concatenate([[1], solution[DEGREE + 1:]])
    q = np.polynomial.polynomial.polyval(u, q_of)
    error = np.abs(z * (np.polynomial.polynomial.polyval(u, p_of) / q - f))
    if error.max() < best[0]:
        scale = LAST ** (2 * powers)
        best = error.max(), p_of / scale, q_of / scale
    weight *= (error / error.max() + 1e-3) ** 0.5
    weight /= weight.mean()
print("error %.2e" % best[0])
for name, values in zip("PQ", best[1:]):
    print(name, ", ".join("%.9ef" % value for value in values))
