"""How far a series remembers: its correlation time, in memory that grows with its lags and not with its length.

In: a series of any length. Out: a number that ``statistics.py`` makes intervals of. Autocovariances are those of the
whole series to the last digits: blocks overlap by the longest lag, and each is multiplied with itself by Fourier
transform.
"""

from __future__ import annotations

from loadgen.arrays import NDArray, np

_LAGS = (1 << 12, 1 << 16)
"""Lags that are tried: the first is enough for nearly every series."""

_MERGED = 16
_BLOCK = 1 << 16

Series = NDArray[np.bool_] | NDArray[np.float64]


def correlation_time(series: Series) -> float:
    """tau = 1 + 2 sum of the autocorrelations rho_k until k >= 5 tau, at least 1; 1 for a constant series.

    Where 65,536 lags are not enough, means of 16 neighbours take the series' place: the mean of all has the same
    variance, sigma^2 tau / n, whichever of the two it is reckoned from.
    """
    n = len(series)
    if n < 2 or not (series != series[0]).any():
        return 1.0
    for lags in _LAGS:
        lags = min(lags, n)
        rho = autocovariances(series, lags)
        taus = np.maximum(1.0, 1 + 2 * np.cumsum(rho[1:] / rho[0]))
        enough = np.flatnonzero(np.arange(1, lags) >= 5 * taus)
        if len(enough) or lags == n:
            return float(taus[enough[0]] if len(enough) else taus[-1])
    means = series[: n - n % _MERGED].reshape(-1, _MERGED).mean(axis=1)
    return max(1.0, _MERGED * float(means.var() / series.var()) * correlation_time(means))


def autocovariances(series: Series, lags: int) -> NDArray[np.float64]:
    """sum_i (x_i - m) (x_{i+k} - m) for k = 0 .. lags - 1, where m is the mean; ``lags`` is at most the length."""
    mean, block = float(series.mean()), max(_BLOCK, 2 * lags)
    size = 1 << (min(block, len(series)) + lags).bit_length()
    total = np.zeros(lags)
    for start in range(0, len(series), block):
        first = series[start : start + block] - mean
        reach = series[start : start + block + lags - 1] - mean
        total += np.fft.irfft(np.conj(np.fft.rfft(first, size)) * np.fft.rfft(reach, size), size)[:lags]
    return total
