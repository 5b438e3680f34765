"""Samples are divided among workers so that an image is decoded as seldom as possible."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sniper.loader.images import ImageUse, RecentKeys, Router

SIZE_PX = 300_000
CACHE_BYTES = 10 * 3 * SIZE_PX


def use_of(key, pixels=SIZE_PX):
    return ImageUse(key, 3 * pixels, pixels)


def counted_reads(batches, num_workers, cache_bytes=CACHE_BYTES):
    """Images that the workers decode, counted with caches of their own."""
    router = Router(num_workers, cache_bytes)
    caches = [RecentKeys(1 << 30, cache_bytes) for _ in range(num_workers)]
    reads, work = 0, [0] * num_workers
    for batch in batches:
        for worker, share in enumerate(router.divide(batch)):
            work[worker] += len(share)
            for index in share:
                key = batch[index].key
                reads += key not in caches[worker]
                caches[worker].use(key, batch[index].num_bytes)
    return reads, work


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 5),
    st.lists(st.lists(st.integers(0, 12), max_size=20), max_size=6),
    st.integers(0, 2**31),
)
def test_every_sample_is_made_once_and_an_image_stays_together(num_workers, batches, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(1, 2_000_000, 13).tolist()
    router = Router(num_workers, 5_000_000)
    for batch in batches:
        shares = router.divide([use_of(key, pixels[key]) for key in batch])
        assert len(shares) == num_workers
        assert sorted(index for share in shares for index in share) == list(range(len(batch)))
        of_share = [[batch[index] for index in share] for share in shares]
        owners = Counter(key for keys in of_share for key in set(keys))
        assert set(owners.values()) <= {1}
        for keys in of_share:  # one after the other, so that one place in the cache is enough
            changes = sum(a != b for a, b in zip(keys, keys[1:]))
            assert changes == max(0, len(set(keys)) - 1)


def test_chips_that_are_grouped_by_image_decode_each_image_once():
    order = [image for image in range(64) for _ in range(5)]
    batches = [[use_of(key) for key in order[i : i + 16]] for i in range(0, 320, 16)]
    for num_workers in (1, 2, 4):
        reads, work = counted_reads(batches, num_workers, cache_bytes=3 * SIZE_PX * 2 * num_workers)
        assert reads == 64
        assert max(work) <= 1.15 * min(work)


def test_images_of_a_shuffle_window_find_their_worker_again():
    rng = np.random.default_rng(0)
    windows = np.arange(320).reshape(-1, 16)
    order = np.concatenate([rng.permutation(window.repeat(5)) for window in windows])
    batches = [[use_of(int(key)) for key in order[i : i + 16]] for i in range(0, len(order), 16)]
    reads, work = counted_reads(batches, 2, cache_bytes=20 * 3 * SIZE_PX)
    assert reads <= 1.2 * 320
    assert max(work) <= 1.1 * min(work)


def test_without_reuse_the_work_is_divided_evenly():
    rng = np.random.default_rng(1)
    batches = [
        [use_of(int(rng.integers(10**9)), int(rng.integers(200_000, 400_000))) for _ in range(15)]
        for _ in range(40)
    ]
    for num_workers in (2, 3, 4):
        _, work = counted_reads(batches, num_workers)
        assert max(work) <= 1.1 * min(work)


def test_one_large_image_does_not_starve_the_other_worker():
    """A worker that is busy with a large image gets fewer of the small ones."""
    router = Router(2, CACHE_BYTES)
    batch = [use_of("large", 6_000_000), *(use_of(i) for i in range(15))]
    shares = router.divide(batch)
    (with_large,) = [share for share in shares if 0 in share]
    assert len(with_large) < 8
