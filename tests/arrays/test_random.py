"""Philox against Random123's published vectors and whole-number arithmetic; streams and masks against their layout."""

import hashlib
import math

import numpy as np
import pytest

from bnengine.arrays.random import Stream, keep_mask, philox, split_seed
from bnengine.errors import InputError
from tests.contracts.oracles import philox as by_whole_numbers

# Random123, tests/kat_vectors, the lines "philox4x32 10": counter, key, result.
PUBLISHED = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def host(x):
    if hasattr(x, "get"):  # CuPy's, which lie on a device
        return x.get()
    return np.from_dlpack(x) if not isinstance(x, np.ndarray) else x


@pytest.mark.parametrize(("counter", "key", "result"), PUBLISHED)
def test_philox_gives_the_published_words(xp, counter, key, result):
    words = philox(tuple(xp.asarray([c], dtype=xp.int64) for c in counter), key)
    assert tuple(int(word[0]) for word in words) == result
    assert all(word.dtype == xp.int64 for word in words)
    assert philox(counter, key) == result


def test_philox_of_arrays_is_philox_of_whole_numbers(xp):
    rng = np.random.default_rng(0)
    edges = [0, 1, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]
    counters = np.concatenate([rng.integers(0, 2**32, (4, 200)), rng.choice(edges, (4, 200))], axis=1)
    for key in [(0, 0), (0xFFFFFFFF, 1), (0x12345678, 0x9ABCDEF0)]:
        words = philox(tuple(xp.asarray(row) for row in counters), key)
        expected = [by_whole_numbers(column, key) for column in counters.T.tolist()]
        np.testing.assert_array_equal(np.stack([host(word) for word in words], axis=1), expected)


def test_a_seed_is_split_low_word_first_and_has_64_bits():
    assert split_seed(0x0123456789ABCDEF) == (0x89ABCDEF, 0x01234567)
    assert split_seed(np.uint64(2**64 - 1)) == (0xFFFFFFFF, 0xFFFFFFFF)
    text = r"^random: the seed must be an integer from 0 to 18446744073709551615, got "
    for seed in (-1, 2**64, 1.0, True, "7", None):
        with pytest.raises(InputError, match=text):
            split_seed(seed)


# Masks


def mask(xp=np, samples=(0, 1, 2), **changes):
    options = {"seed": 11, "layer": 3, "step": 5, "features": 10, "rate": 0.4, **changes}
    samples = samples if isinstance(samples, np.ndarray) else xp.asarray(samples, dtype=xp.int64)
    return keep_mask(xp, samples=samples, **options)


@pytest.mark.parametrize("features", [1, 3, 4, 10])
def test_a_mask_is_its_definition(xp, features):
    samples, layer, step, seed, rate = [0, 9, 2**31, 2**32 - 1], 2**31 - 1, 2**32 - 1, 0xFEDCBA9876543210, 0.3
    kept = mask(xp, samples, seed=seed, layer=layer, step=step, features=features, rate=rate)
    counted = xp.asarray([step], dtype=xp.int64)
    on_device = mask(xp, samples, seed=seed, layer=layer, step=counted, features=features, rate=rate)
    np.testing.assert_array_equal(host(on_device), host(kept))
    assert kept.dtype == xp.bool
    for row, s in enumerate(samples):
        for j in range(features):
            word = by_whole_numbers((j // 4, s, step, layer), (0x76543210, 0xFEDCBA98))[j % 4]
            assert bool(kept[row, j]) == (word >= round(rate * 2**32)), (s, j)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 1.0}, r"rate must .* got 1.0"),
        ({"rate": -0.1}, r"rate must .* got -0.1"),
        ({"rate": math.nan}, r"rate must .* got nan"),
        ({"features": 0}, r"features must .* got 0"),
        ({"layer": 2**31}, r"layer's number must .* got 2147483648"),
        ({"step": 2**32}, r"step must .* got 4294967296"),
        ({"step": -1}, r"step must .* got -1"),
        ({"step": np.asarray([-1])}, r"step must be in .*got -1 to"),
        ({"step": np.asarray([1, 2])}, r"step must be .*got int64 \(2,\)"),
        ({"step": np.asarray([1.0])}, r"step must be .*got float64"),
        ({"samples": [2**32]}, r"samples must be in .*got 4294967296 to"),
        ({"samples": [-1]}, r"samples must be in .*got -1 to"),
        ({"samples": [[1]]}, r"samples must be int64 .*got int64 \(1, 1\)"),
        ({"samples": np.zeros(3, np.int32)}, "samples must be int64 .*got int32"),
    ],
)
def test_a_mask_refuses_what_no_counter_can_hold(change, message):
    with pytest.raises(InputError, match=r"^dropout: .*" + message):
        mask(**change)


# Streams


def words_of(seed, purpose, block):
    """One block of a stream, spelt out from the documented layout."""
    parts = b""
    for part in purpose:
        text = part.encode() if isinstance(part, str) else str(part).encode()
        parts += (b"s" if isinstance(part, str) else b"i") + len(text).to_bytes(8, "little") + text
    purpose_word = int.from_bytes(hashlib.blake2b(parts, digest_size=8).digest(), "little") | 2**63
    counter = (block % 2**32, block >> 32, purpose_word % 2**32, purpose_word >> 32)
    return by_whole_numbers(counter, (seed % 2**32, seed >> 32))


@pytest.mark.parametrize("position", [0, 5, 2**32 - 2, 2**64 - 10])
def test_a_stream_reads_its_documented_counters(position):
    seed, purpose = 0x0123456789ABCDEF, ("weights", 3, "W")
    stream = Stream(seed, *purpose, position=position)
    expected = []
    for block in range(position, position + 4):
        w0, w1, w2, w3 = words_of(seed, purpose, block)
        expected += [((w0 << 20 | w1 >> 12) + 0.5) / 2**52, ((w2 << 20 | w3 >> 12) + 0.5) / 2**52]
    np.testing.assert_array_equal(stream.uniform(7), expected[:7])
    assert stream.position == position + 4


def test_a_draw_does_not_depend_on_how_it_is_cut_into_chunks(monkeypatch):
    whole = Stream(1, "a").normal(1001)
    monkeypatch.setattr("bnengine.arrays.random._CHUNK", 7)
    np.testing.assert_array_equal(Stream(1, "a").normal(1001), whole)


def test_position_is_all_there_is_to_restore():
    stream = Stream(3, "order")
    stream.normal(11)
    stream.integers(0, 5, 7)
    saved = stream.position
    rest = stream.permutation(20), stream.uniform((2, 3))
    again = Stream(3, "order", position=saved)
    for value, expected in zip((again.permutation(20), again.uniform((2, 3))), rest, strict=True):
        np.testing.assert_array_equal(value, expected)
    assert again.position == stream.position
    assert repr(again) == f"Stream(3, 'order', position={again.position})"


def test_purposes_that_read_alike_are_still_different():
    np.testing.assert_array_equal(Stream(np.int64(4), np.int32(7)).uniform(3), Stream(4, 7).uniform(3))
    purposes = [(), ("",), ("ab",), ("a", "b"), ("1",), (1,), (1, 2), (12,), (-1,), ("a", 1), ("a1",)]
    draws = {Stream(0, *purpose).uniform(2).tobytes() for purpose in purposes}
    draws.add(Stream(1).uniform(2).tobytes())
    assert len(draws) == len(purposes) + 1


def test_uniform_fills_the_open_interval_evenly():
    x = Stream(5, "uniform").uniform((500, 400))
    assert x.shape == (500, 400)
    assert x.dtype == np.float64
    assert 0 < x.min() < 1e-4
    assert 1 - 1e-4 < x.max() < 1
    counts = np.histogram(x, bins=100, range=(0, 1))[0]
    assert np.sum((counts - 2000) ** 2 / 2000) < 99 + 5 * math.sqrt(2 * 99)


def test_normal_has_the_moments_of_a_normal_distribution():
    n = 200_000
    x = Stream(5, "normal").normal(n)
    # Standard errors of the sample moments: sqrt(1/n), sqrt(2/n), sqrt(15/n), sqrt(96/n).
    assert abs(np.mean(x)) < 5 * math.sqrt(1 / n)
    assert abs(np.mean(x**2) - 1) < 5 * math.sqrt(2 / n)
    assert abs(np.mean(x**3)) < 5 * math.sqrt(15 / n)
    assert abs(np.mean(x**4) - 3) < 5 * math.sqrt(96 / n)
    assert abs(np.mean(x[1:] * x[:-1])) < 5 * math.sqrt(1 / n)
    assert abs(np.mean(np.abs(x) < 1) - math.erf(math.sqrt(0.5))) < 5 * math.sqrt(0.25 / n)


def test_the_bits_of_a_stream_never_change():
    """Recorded once: a change of these bits would change every trained network."""
    stream = Stream(2024, "weights", 0)
    assert [x.hex() for x in stream.uniform(2)] == ["0x1.d7a8ee563ec86p-2", "0x1.0c5360d7ab116p-2"]
    normal = ["0x1.0e9a85be4877ap-1", "-0x1.c24dc03513e0cp-1", "-0x1.52eced6ff6142p+0"]
    assert [x.hex() for x in stream.normal(3)] == normal
    assert stream.integers(0, 1000, 5).tolist() == [26, 61, 80, 642, 910]
    assert stream.permutation(8).tolist() == [6, 5, 3, 4, 2, 0, 1, 7]
    assert stream.position == 10


LOWEST, BEYOND = -(2**63), 2**63


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 4), (10, 27), (0, BEYOND), (LOWEST, 0), (BEYOND - 2, BEYOND)])
def test_integers_are_evenly_spread(low, high):
    x = Stream(6, "integers").integers(low, high, 5_000)
    bins = min(high - low, 64)
    counts = np.bincount([(value - low) * bins // (high - low) for value in x.tolist()], minlength=bins)
    assert (x.dtype, counts.size, low <= int(x.min()) <= int(x.max()) < high) == (np.int64, bins, True)
    expected, freedom = 5_000 / bins, bins - 1
    assert np.sum((counts - expected) ** 2 / expected) <= freedom + 5 * math.sqrt(2 * freedom)


def test_all_orders_of_four_are_equally_likely():
    for n in (0, 1, 2, 1000):
        np.testing.assert_array_equal(np.sort(Stream(7, "order", n).permutation(n)), np.arange(n))
    stream = Stream(8, "orders")
    n = 4_800
    seen: dict[tuple[int, ...], int] = {}
    for _ in range(n):
        order = tuple(stream.permutation(4).tolist())
        seen[order] = seen.get(order, 0) + 1
    assert len(seen) == 24
    assert sum((count - n / 24) ** 2 / (n / 24) for count in seen.values()) < 23 + 5 * math.sqrt(2 * 23)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: Stream(2**64), "the seed must"),
        (lambda: Stream(0, 1.5), "part of the purpose must be an integer, got 1.5"),
        (lambda: Stream(0, True), "part of the purpose must be an integer, got True"),
        (lambda: Stream(0, position=-1), "position must .* got -1"),
        (lambda: Stream(0, position=2**64), "position must"),
        (lambda: Stream(0).uniform((2, -1)), "size of the shape must .* got -1"),
        (lambda: Stream(0).permutation(-1), "permutation: n must .* got -1"),
        (lambda: Stream(0).permutation(2**32 + 1), "permutation"),
        *(
            (lambda low=low, high=high: Stream(0).integers(low, high, 3), "high must be an integer from")
            for low, high in ((3, 3), (4, 3), (LOWEST, BEYOND), (0, BEYOND + 1))
        ),
    ],
)
def test_a_stream_refuses_what_it_cannot_use(action, message):
    with pytest.raises(InputError, match=message):
        action()
