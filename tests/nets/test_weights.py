import torch
from safetensors.torch import save_file

from neuroreel.nets.weights import read_about, write_state


def test_equal_weights_that_say_the_same_are_equal_files(tmp_path):
    state, about = {"a": torch.arange(3.0)}, {name: name.upper() for name in "qwertyuiop"}
    first = write_state(tmp_path / "1.safetensors", state, about=about)
    assert {write_state(tmp_path / "2.safetensors", state, about=about) for _ in range(8)} == {first}
    assert read_about(tmp_path / "2.safetensors") == about
    assert write_state(tmp_path / "3.safetensors", state, about=about | {"q": "other"}) != first


def test_a_file_of_others_says_what_stands_in_its_header(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors", metadata={"format": "pt"})
    assert read_about(tmp_path / "other.safetensors") == {"format": "pt"}
