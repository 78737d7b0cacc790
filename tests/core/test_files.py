import numpy as np

from neuroreel.core.files import digest_of


def test_what_is_told_apart_by_its_digest():
    ones = np.ones((2, 3), np.float32)
    others = [["a", ones.T], ["a", ones.astype(np.float64)], ["b", ones], ["a", 2 * ones], ["a", "", ones], ["a"]]
    assert digest_of(["a", ones]) == digest_of(["a", ones.copy()])
    assert digest_of(["a", ones]) not in {digest_of(other) for other in others}
    assert digest_of([np.array(["ab", "c"])]) != digest_of([np.array(["a", "bc"])])
    texts = np.array(["ab", "c"], object)
    assert digest_of([texts]) == digest_of([np.array(["ab", "c"], object)]) != digest_of([texts[::-1]])
