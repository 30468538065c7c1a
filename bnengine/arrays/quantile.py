"""The quantile function of the normal distribution and the logarithm it needs: the same bits on every machine.

A library's log may differ in its last bit between machines and versions. Here everything is computed by + - * / sqrt,
which IEEE 754 rounds in one way only, and by frexp, which is exact.
"""

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

# ln 2 in two parts: the first has 32 bits, so its product with an exponent is exact.
_LN2_HIGH = float.fromhex("0x1.62e42fefp-1")
_LN2_LOW = float.fromhex("0x1.473de6af278edp-34")
_SQRT_HALF = float.fromhex("0x1.6a09e667f3bcdp-1")
_ATANH = tuple(2.0 / k for k in range(3, 24, 2))  # 2 atanh(s) = 2 s + s (2/3 s^2 + 2/5 s^4 + ...)

# Wichura's coefficients of numerator and denominator, constant term first.
_CENTER = (
    (
        3.3871328727963666080,
        1.3314166789178437745e2,
        1.9715909503065514427e3,
        1.3731693765509461125e4,
        4.5921953931549871457e4,
        6.7265770927008700853e4,
        3.3430575583588128105e4,
        2.5090809287301226727e3,
    ),
    (
        1.0,
        4.2313330701600911252e1,
        6.8718700749205790830e2,
        5.3941960214247511077e3,
        2.1213794301586595867e4,
        3.9307895800092710610e4,
        2.8729085735721942674e4,
        5.2264952788528545610e3,
    ),
)
_TAIL = (
    (
        1.42343711074968357734,
        4.63033784615654529590,
        5.76949722146069140550,
        3.64784832476320460504,
        1.27045825245236838258,
        2.41780725177450611770e-1,
        2.27238449892691845833e-2,
        7.74545014278341407640e-4,
    ),
    (
        1.0,
        2.05319162663775882187,
        1.67638483018380384940,
        6.89767334985100004550e-1,
        1.48103976427480074590e-1,
        1.51986665636164571966e-2,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ),
)
_FAR_TAIL = (
    (
        6.65790464350110377720,
        5.46378491116411436990,
        1.78482653991729133580,
        2.96560571828504891230e-1,
        2.65321895265761230930e-2,
        1.24266094738807843860e-3,
        2.71155556874348757815e-5,
        2.01033439929228813265e-7,
    ),
    (
        1.0,
        5.99832206555887937690e-1,
        1.36929880922735805310e-1,
        1.48753612908506148525e-2,
        7.86869131145613259100e-4,
        1.84631831751005468180e-5,
        1.42151175831644588870e-7,
        2.04426310338993978564e-15,
    ),
)


def log(x: Float64) -> Float64:
    """Natural logarithm of positive finite float64 numbers, less than 1 ulp off.

    x = 2**e (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2); s = f / (2 + f); then log(1 + f) = 2 atanh(s) = f - (f^2 / 2 -
    s (f^2 / 2 + R)) with R = 2/3 s^2 + 2/5 s^4 + ... + 2/23 s^22, where |s| < 0.172 leaves the rest of the series
    below 2**-62. f enters unrounded, so numbers near 1 keep their digits.
    """
    fraction, exponent = np.frexp(x)
    small = fraction < _SQRT_HALF
    f = np.where(small, 2.0 * fraction, fraction) - 1.0
    e = (exponent - small).astype(np.float64)
    s = f / (2.0 + f)
    z = s * s
    half_square = 0.5 * f * f
    return e * _LN2_HIGH - ((half_square - (s * (half_square + z * _polynomial(_ATANH, z)) + e * _LN2_LOW)) - f)


def normal_quantile(p: Float64) -> Float64:
    """Return the z with P(Z <= z) = p for a standard normal Z and 0 < p < 1, float64, to about 1 part in 10**16.

    Algorithm AS 241, PPND16 (Wichura, "The percentage points of the normal distribution", Applied Statistics 37,
    1988, 477-484): with q = p - 1/2 a rational function of 0.425**2 - q^2 where |q| <= 0.425, else of
    sqrt(-log(min(p, 1 - p))).
    """
    q = p - 0.5
    z = q * _rational(_CENTER, 0.180625 - q * q)
    outside = np.abs(q) > 0.425
    below = q[outside] < 0.0
    tail = p[outside]
    r = np.sqrt(-log(np.where(below, tail, 1.0 - tail)))
    size = np.where(r <= 5.0, _rational(_TAIL, r - 1.6), _rational(_FAR_TAIL, r - 5.0))
    z[outside] = np.where(below, -size, size)
    return z


def _rational(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: Float64) -> Float64:
    numerator, denominator = coefficients
    return _polynomial(numerator, x) / _polynomial(denominator, x)


def _polynomial(coefficients: tuple[float, ...], x: Float64) -> Float64:
    """c0 + c1 x + c2 x^2 + ... by Horner's rule."""
    value = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value *= x
        value += coefficient
    return value
