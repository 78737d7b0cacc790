import numpy as np
import pytest

from neuroreel.core.errors import DataError
from neuroreel.report.objects import accuracy_figure, identification_figure, similar_figure, unit_figure


def test_the_scatter_says_its_correlation() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=50)
    made = unit_figure(true + rng.normal(size=50), true, "cnn6 unit 562 from VC")
    assert "cnn6 unit 562 from VC" in made.svg and made.png.startswith(b"\x89PNG")
    assert (
        f"correlation {np.corrcoef(true + np.random.default_rng(0).normal(size=(2, 50))[1], true)[0, 1]:.2f}"
        in made.alt
    )
    flat = unit_figure(np.zeros(50), true, "flat")
    assert "nan" in flat.alt


def test_the_table_names_the_best_layer_of_each_region() -> None:
    table = np.array([[0.9, 0.6, np.nan], [0.5, 0.6, 0.7], [np.nan] * 3])
    made = accuracy_figure({"seen": table, "imagined": table / 2}, ["V1", "FFA", "none"], ["cnn1", "cnn2", "cnn3"])
    assert "best layers: V1: cnn1, FFA: cnn3." in made.alt
    with pytest.raises(DataError, match=r"^seen must have the shape \(1, 3\), got \(3, 3\)$"):
        accuracy_figure({"seen": table}, ["V1"], ["cnn1", "cnn2", "cnn3"])


def test_the_most_similar_categories_come_first_and_the_true_one_is_counted() -> None:
    similarity = np.array([[0.1, 0.9, np.nan, 0.3], [0.8, 0.2, 0.1, 0.0]])
    made = similar_figure(similarity, ["cat", "dog"], ["dog", "cat", "car", "tree"], shown=2)
    assert "the true one is among the 2 most similar 2 times" in made.alt
    assert made.svg.index("cat  0.90") < made.svg.index("tree  0.30") and "car" not in made.svg


def test_identification_is_drawn_against_chance() -> None:
    made = identification_figure({"seen": np.full((2, 5), 0.8), "imagined": np.full((2, 5), 0.6)}, ["V1", "VC"])
    assert "chance" in made.svg and "seen 0.80, imagined 0.60" in made.alt
