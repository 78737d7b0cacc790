import numpy as np
import torch

from neuroreel.nets.cache import cached, digest_of


def test_tensors_are_made_once_and_anew_when_what_they_are_made_of_changes(tmp_path):
    made, data = [], np.arange(6.0)

    def make():
        made.append(1)
        return {"twice": torch.from_numpy(2 * data)}

    for name in ("a", "a", "b", "b", "a"):
        found = cached(tmp_path / "kept.safetensors", [name, data], make)
        np.testing.assert_array_equal(found["twice"], 2 * data)
    assert len(made) == 3
    data = data + 1
    np.testing.assert_array_equal(cached(tmp_path / "kept.safetensors", ["a", data], make)["twice"], 2 * data)


def test_what_is_told_apart_by_its_digest():
    ones = np.ones((2, 3), np.float32)
    others = [["a", ones.T], ["a", ones.astype(np.float64)], ["b", ones], ["a", 2 * ones], ["a", "", ones], ["a"]]
    assert digest_of(["a", ones]) == digest_of(["a", ones.copy()])
    assert digest_of(["a", ones]) not in {digest_of(other) for other in others}
    assert digest_of([np.array(["ab", "c"])]) != digest_of([np.array(["a", "bc"])])
