"""How far a series remembers: its autocovariances, for lags that matter, in memory that does not grow with it.

In: a series of any length. Out: sums that ``statistics.py`` makes a correlation time of. They are those of the whole
series to the last digits: blocks overlap by the longest lag, and each is multiplied with itself by Fourier transform.
"""

from __future__ import annotations

from loadgen.arrays import NDArray, np

_BLOCK = 1 << 16


def autocovariances(series: NDArray[np.bool_] | NDArray[np.float64], lags: int) -> NDArray[np.float64]:
    """sum_i (x_i - m) (x_{i+k} - m) for k = 0 .. lags - 1, where m is the mean; ``lags`` is at most the length."""
    mean, block = float(series.mean()), max(_BLOCK, 2 * lags)
    size = 1 << (min(block, len(series)) + lags).bit_length()
    total = np.zeros(lags)
    for start in range(0, len(series), block):
        first = series[start : start + block] - mean
        reach = series[start : start + block + lags - 1] - mean
        total += np.fft.irfft(np.conj(np.fft.rfft(first, size)) * np.fft.rfft(reach, size), size)[:lags]
    return total
