import numpy as np
import pytest
from scipy.spatial.distance import correlation, cosine, sqeuclidean

from neuroreel.core.errors import DataError
from neuroreel.metrics import embedded
from neuroreel.metrics.embedded import Backbone
from neuroreel.metrics.identification import identify_pairwise

HASH = "0a1b2c3d" * 8


def embeddings(seed=0, shape=(7, 3, 20)):
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal(shape)
    return truth + rng.standard_normal(shape), truth


@pytest.mark.parametrize(
    ("function", "one"),
    [
        (embedded.cosine_similarity, lambda a, b: 1 - cosine(a, b)),
        (embedded.correlation_distance, correlation),
        (embedded.squared_distance, sqeuclidean),
    ],
)
def test_distances_are_those_of_scipy_averaged_over_frames(function, one):
    predicted, truth = embeddings()
    expected = [np.mean([one(*f) for f in zip(*c, strict=True)]) for c in zip(predicted, truth, strict=True)]
    np.testing.assert_allclose(function(predicted, truth), expected)
    np.testing.assert_allclose(function(predicted[:, 0], truth[:, 0]), function(predicted[:, :1], truth[:, :1]))


def test_two_way_identification_is_the_share_of_true_clips_that_are_less_alike():
    predicted, truth = embeddings(shape=(9, 1, 20))
    r = np.corrcoef(truth[:, 0], predicted[:, 0])[:9, 9:]
    released = (r < np.diag(r)).sum(axis=0) / 8
    np.testing.assert_allclose(identify_pairwise(embedded.embedding_similarity(predicted, truth)), released)


def test_nway_over_frames_is_the_mean_of_the_frames():
    rng = np.random.default_rng(1)
    predicted, truth = rng.dirichlet(np.ones(12), (2, 5, 3))
    frames = [embedded.nway_frames(predicted[:, f], truth[:, f], 4) for f in range(3)]
    np.testing.assert_allclose(embedded.nway_frames(predicted, truth, 4), np.mean(frames, axis=0))


@pytest.mark.parametrize("accepted", [1, 3])
def test_pairs_of_nway_are_what_every_truth_alone_gives(accepted):
    rng = np.random.default_rng(2)
    predicted, truth = rng.dirichlet(np.ones(8), (2, 6, 2))
    truth[3] = truth[1]
    pairs = embedded.nway_pairs(predicted, truth, 4, accepted=accepted)
    for j in range(6):
        every = np.broadcast_to(truth[j], truth.shape)
        np.testing.assert_allclose(pairs[:, j], embedded.nway_frames(predicted, every, 4, accepted=accepted))


def test_labels_become_probabilities_and_unknown_ones_stay_undefined():
    rows = embedded.one_hot(np.array(["b", "", "a"]), ("a", "b"))
    np.testing.assert_array_equal(rows, [[0, 1], [np.nan, np.nan], [1, 0]])
    values = embedded.nway_frames(np.array([[0.1, 0.9]] * 3), rows, 2)
    np.testing.assert_array_equal(values, [1, np.nan, 0])
    assert np.isnan(embedded.nway_pairs(np.array([[0.1, 0.9]] * 3), rows, 2)[:, 1]).all()


def test_a_backbone_stands_in_the_name_with_its_hash():
    backbone = Backbone("google/vit-base-patch16-224", HASH, lambda clips: clips[:, :, 0, 0])
    assert backbone.tag == "vit-base-patch16-224-0a1b2c3d"
    assert backbone(np.zeros((2, 3, 4, 4, 3))).shape == (2, 3, 3)


def test_a_backbone_that_returns_nonsense_is_refused():
    clips = np.zeros((2, 3, 4, 4, 3))
    with pytest.raises(DataError, match=r"embeddings must have as many entries as clips \(2\), got 1 \(net\)"):
        Backbone("net", HASH, lambda clips: clips[:1, :, 0, 0])(clips)
    with pytest.raises(DataError, match="embeddings must be finite"):
        Backbone("net", HASH, lambda clips: np.full((2, 5), np.nan))(clips)
    with pytest.raises(DataError, match=r"weights_sha256 must be 64 hexadecimal digits, got 'abc' \(net\)"):
        Backbone("net", "abc", lambda clips: clips)
