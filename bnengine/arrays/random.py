"""Random numbers without hidden state: every bit is a function of a seed, a purpose and a position.

The generator is Philox 4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011):
ten rounds of a keyed bijection of a counter of four 32-bit words. It gives the same bits with every array library and
on every device. The key is the seed, low word first. No two uses share a counter:

| use         | word 0             | word 1              | word 2            | word 3                    |
|-------------|--------------------|---------------------|-------------------|---------------------------|
| `keep_mask` | feature // 4       | sample              | step              | layer, below 2**31        |
| `Stream`    | position, low word | position, high word | purpose, low word | purpose, high word + 2**31 |
"""

import hashlib
import operator
from collections.abc import Callable, Iterator
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt
from array_api_compat import device as device_of

from .._typing import Array
from ..errors import InputError
from ..validation import integer, number
from .quantile import normal_quantile

_MASK = 0xFFFFFFFF
# The multipliers 0xD2511F53 and 0xCD9E8D57 less 2**32. Both lie in the upper half of 32 bits, so |multiplier * word|
# stays below 2**62: the product fits int64, and 2**32 * word is put back by adding the word to the upper half.
_MULTIPLIER_0 = 0xD2511F53 - 2**32
_MULTIPLIER_1 = 0xCD9E8D57 - 2**32
_WEYL_0 = 0x9E3779B9
_WEYL_1 = 0xBB67AE85
_ROUNDS = 10
_CHUNK = 1 << 14  # blocks drawn at once: the working arrays (128 KiB each) stay in the cache
_CPU = 1  # kDLCPU in DLPack's list of devices


def philox(
    counter: tuple[Array | int, Array | int, Array | int, Array | int], key: tuple[int, int]
) -> tuple[Array, Array, Array, Array]:
    """Philox 4x32-10: four random 32-bit words for each counter.

    One round maps (c0, c1, c2, c3) to (hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1, lo(M0 c0)) with
    M0 = 0xD2511F53, M1 = 0xCD9E8D57; between rounds k0 grows by 0x9E3779B9 and k1 by 0xBB67AE85 modulo 2**32. Nothing
    overflows int64.

    Args:
        counter: four words in [0, 2**32), each an int64 array of any library or an int, not checked here. Shapes
            broadcast; words of a smaller shape make the first rounds cheaper.
        key: two ints in [0, 2**32).

    Returns:
        Four words in [0, 2**32) of the broadcast shape, int64 (ints if all counters are ints).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0 = c0 * _MULTIPLIER_0
        p1 = c2 * _MULTIPLIER_1
        high0 = (p0 >> 32) + c0
        high1 = (p1 >> 32) + c2
        c0, c1, c2, c3 = high1 ^ (c1 ^ k0), p1 & _MASK, high0 ^ (c3 ^ k1), p0 & _MASK
        k0, k1 = (k0 + _WEYL_0) & _MASK, (k1 + _WEYL_1) & _MASK
    return c0, c1, c2, c3


def split_seed(seed: SupportsIndex) -> tuple[int, int]:
    """Return Philox's key (low word, high word) of a seed in [0, 2**64); InputError for any other seed."""
    bits = integer("random", "the seed", seed, least=0, most=2**64 - 1)
    return bits & _MASK, bits >> 32


def keep_mask(
    xp: Any, *, seed: int, layer: int, step: Array | int, samples: Array, features: int, rate: float, device: Any = None
) -> Array:
    """Return which activations dropout keeps: True with probability 1 - rate, at a resolution of 2**-32.

    Feature j of sample s is kept where word j % 4 of philox((j // 4, s, step, layer), seed) >= round(rate * 2**32):
    it depends on the sample's index in the data set and never on its place in the batch, so batch size, order and
    device change nothing.

    Args:
        xp: the array namespace.
        seed: in [0, 2**64).
        layer: in [0, 2**31).
        step: an int or int64 (1,) on `device`, in [0, 2**32).
        samples: int64 (m,) on `device`, in [0, 2**32).
        features: how many per sample.
        rate: the share set to zero, in [0, 1).
        device: None for that of samples.

    Returns:
        bool (m, features).

    Raises:
        InputError: an argument out of range. The values of `samples`, and of a step in an array, are checked only in
            the host's memory, since reading a device's array would make the host wait; there the low 32 bits count.
    """
    key = split_seed(seed)
    layer = integer("dropout", "the layer's number", layer, least=0, most=2**31 - 1)
    rate = number("dropout", "rate", rate, least=0, below=1, cure="It is the share of values set to zero.")
    features = integer("dropout", "features", features, least=1)
    if samples.ndim != 1 or samples.dtype != xp.int64:
        raise InputError(
            f"dropout: samples must be int64 indices of shape (m,), got {samples.dtype} {tuple(samples.shape)}."
        )
    threshold = round(rate * 2**32)
    blocks = xp.arange((features + 3) // 4, dtype=xp.int64, device=device_of(samples) if device is None else device)
    rows = _words(xp, "samples", samples)
    words = philox((blocks[None, :], rows[:, None], _step_word(xp, step), layer), key)
    keep = xp.stack([word >= threshold for word in words], axis=-1)
    return xp.reshape(keep, (samples.shape[0], 4 * blocks.shape[0]))[:, :features]


def _step_word(xp: Any, step: Array) -> Array:
    if not hasattr(step, "shape") or step.shape == ():
        return integer("dropout", "the step", step, least=0, most=_MASK)
    if tuple(step.shape) != (1,) or step.dtype != xp.int64:
        raise InputError(f"dropout: step must be an int or an int64 array (1,), got {step.dtype} {tuple(step.shape)}.")
    return _words(xp, "step", step)[:, None]


def _words(xp: Any, name: str, values: Array) -> Array:
    """Return values as 32-bit words; check their range where reading it costs no wait."""
    if values.__dlpack_device__()[0] == _CPU and bool(xp.any((values < 0) | (values > _MASK))):
        raise InputError(
            f"dropout: {name} must be in [0, 2**32), since they are words of a counter, got "
            f"{int(xp.min(values))} to {int(xp.max(values))}."
        )
    return values & _MASK


class Stream:
    """A sequence of random numbers on the host, for a seed and a purpose, read from `position` on.

    Block b of the sequence is philox((b low, b high, purpose low, purpose high), seed), four words; `position` is the
    number of the next block and all there is to save and restore. Every draw starts at a new block, so a draw of 3 and
    one of 3 is not a draw of 6. The purpose's 63 bits are the first 8 bytes, little-endian and with the top bit set, of
    BLAKE2b (digest_size 8) over its parts in order, each as b"s" or b"i", the number of bytes that follow as 8 bytes
    little-endian, and the string's UTF-8 or the int's decimal digits. All values come from integer bits by + - * / sqrt
    and exact scaling: the same on every machine with IEEE arithmetic.

    Args:
        seed: in [0, 2**64).
        purpose: strings and ints that say what the numbers are for, such as `Stream(7, "weights", 3)`. Other purposes
            give other, independent sequences.
        position: the block that the first draw starts with.
    """

    def __init__(self, seed: SupportsIndex, *purpose: str | SupportsIndex, position: int = 0) -> None:
        self._key = split_seed(seed)
        digest = int.from_bytes(hashlib.blake2b(_encode(purpose), digest_size=8).digest(), "little")
        self._purpose = (digest & _MASK, digest >> 32 | 2**31)
        self._name = ", ".join(map(repr, (operator.index(seed), *purpose)))
        self.position = position

    def __repr__(self) -> str:
        return f"Stream({self._name}, position={self.position})"

    @property
    def position(self) -> int:
        """The number of the block that the next draw starts with, in [0, 2**64)."""
        return self._position

    @position.setter
    def position(self, block: SupportsIndex) -> None:
        self._position = integer("Stream", "position", block, least=0, most=2**64 - 1)

    def uniform(self, shape: int | tuple[int, ...] = ()) -> npt.NDArray[np.float64]:
        """Return uniform float64 in the open interval (0, 1): (k + 1/2) / 2**52 with k of 52 random bits."""
        return self._fill(shape, np.float64, _uniform)

    def normal(self, shape: int | tuple[int, ...] = ()) -> npt.NDArray[np.float64]:
        """Return standard normal float64: the quantile of a uniform draw, so one draw each and |value| < 8.3."""
        return self._fill(shape, np.float64, lambda words: normal_quantile(_uniform(words)))

    def integers(self, low: int, high: int, shape: int | tuple[int, ...] = ()) -> npt.NDArray[np.int64]:
        """Return integers in [low, high), all equally likely, int64; InputError unless 0 < high - low <= 2**63.

        Random bits are cut to the fewest that hold high - low - 1; values above it are drawn again from the following
        blocks.
        """
        low = integer("Stream.integers", "low", low, least=-(2**63), most=2**63 - 1)
        high = integer("Stream.integers", "high", high, least=low + 1, most=min(2**63, low + 2**63))
        span = high - low
        mask = (1 << (span - 1).bit_length()) - 1
        values = self._fill(shape, np.int64, _int63)
        flat = values.reshape(-1)
        flat &= mask
        again = np.flatnonzero(flat >= span) if span <= mask else np.empty(0, np.int64)
        while again.size:
            flat[again] = self._fill(again.size, np.int64, _int63) & mask
            again = again[flat[again] >= span]
        flat += low
        return values

    def permutation(self, n: int) -> npt.NDArray[np.int64]:
        """Return the numbers 0 ... n - 1 in random order, int64; InputError unless 0 <= n <= 2**32.

        They are sorted by random keys of 63 bits. Two equal keys (chance below n**2 / 2**64) keep their order, since
        the sort is stable: the result is the same everywhere.
        """
        n = integer("Stream.permutation", "n", n, least=0, most=2**32)
        return np.argsort(self._fill(n, np.int64, _int63), kind="stable").astype(np.int64, copy=False)

    def _fill(
        self, shape: int | tuple[int, ...], dtype: Any, convert: Callable[[npt.NDArray[np.int64]], npt.NDArray[Any]]
    ) -> npt.NDArray[Any]:
        """Return an array of `shape`, each value made by `convert` from two consecutive words."""
        values = np.empty(_shape(shape), dtype)
        flat = values.reshape(-1)
        start = 0
        for words in self._draw((flat.size + 1) // 2):
            part = flat[start : start + words.shape[1]]
            part[...] = convert(words[:, : part.size])
            start += part.size
        return values

    def _draw(self, blocks: int) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the next `blocks` blocks in chunks, as pairs of words (2, 2 * chunk); position skips all at once."""
        first = self.position
        self.position = first + blocks
        for start in range(first, first + blocks, _CHUNK):
            # The low word may wrap inside a chunk, so both words are made from offsets that int64 holds.
            low = (start & _MASK) + np.arange(min(_CHUNK, first + blocks - start), dtype=np.int64)
            counter = (low & _MASK, ((start >> 32) + (low >> 32)) & _MASK, *self._purpose)
            yield np.stack(philox(counter, self._key), axis=1).reshape(-1, 2).T


def _uniform(words: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    bits: npt.NDArray[np.int64] = (words[0] << 20) | (words[1] >> 12)
    return (
        bits.astype(np.float64) + 0.5
    ) * 2.0**-52  # 52 bits and a half are 53 bits: no rounding, and neither 0 nor 1


def _int63(words: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    bits: npt.NDArray[np.int64] = (words[0] << 31) | (words[1] >> 1)
    return bits


def _encode(purpose: tuple[str | SupportsIndex, ...]) -> bytes:
    """Return the purpose as bytes, such that different purposes never give the same bytes."""
    parts = []
    for part in purpose:
        if isinstance(part, str):
            kind, text = b"s", part.encode()
        else:
            cure = "Give strings and integers."
            kind, text = b"i", str(integer("Stream", "each part of the purpose", part, cure=cure)).encode()
        parts.append(kind + len(text).to_bytes(8, "little") + text)
    return b"".join(parts)


def _shape(shape: int | tuple[int, ...]) -> tuple[int, ...]:
    sizes = shape if isinstance(shape, tuple) else (shape,)
    return tuple(integer("Stream", "each size of the shape", size, least=0) for size in sizes)
