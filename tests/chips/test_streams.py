import numpy as np

from sniper.chips.streams import stream_seeds


def test_arrays_and_scalars_agree():
    seeds = stream_seeds(7, np.arange(5), 3)
    assert seeds.dtype == np.int64 and (seeds >= 0).all()
    assert seeds.tolist() == [int(stream_seeds(7, i, 3)) for i in range(5)]


def test_every_key_and_its_place_count():
    keys = [(1, 2, 3), (2, 1, 3), (1, 2, 4), (1, 3, 3), (0, 2, 3), (-1, 2, 3), (1, 2, 3, 0), (1, 2)]
    assert len({int(stream_seeds(*key)) for key in keys}) == len(keys)


def test_seeds_look_uniform():
    seeds = stream_seeds(0, np.arange(40000))
    assert len(set(seeds.tolist())) == 40000
    for bit in range(63):
        assert abs(((seeds >> bit) & 1).mean() - 0.5) < 0.02
    histogram = np.bincount(seeds % 4, minlength=4)
    assert (abs(histogram - 10000) < 500).all()
