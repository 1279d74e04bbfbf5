"""The measures, over vectors of unit length: thin calls into scikit-learn and scipy.

Shapes: `a`, `b` [n, dimension] are compared row by row; labels and scores are [n].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import pearsonr, spearmanr
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, ndcg_score, v_measure_score
from sklearn.neighbors import KNeighborsClassifier

from anytask.evaluation.embedder import Vectors

Numbers = npt.NDArray[np.float64]
Labels = npt.NDArray[np.str_]


def row_cosines(a: Vectors, b: Vectors) -> Numbers:
    """Cosine of each row of `a` with the same row of `b`, [n]."""
    cosines: Numbers = np.einsum("nd,nd->n", a, b, dtype=np.float64)
    return cosines


def spearman(predicted: Numbers, human: Sequence[float]) -> float:
    return float(spearmanr(predicted, human).statistic)


def pearson(predicted: Numbers, human: Sequence[float]) -> float:
    return float(pearsonr(predicted, human).statistic)


def average_precision(relevant: Sequence[int], scores: Numbers) -> float:
    """Area under the precision-recall curve in its step form, as trec_eval computes it."""
    return float(average_precision_score(relevant, scores))


def ndcg_at_10(queries: Vectors, documents: Vectors, gains: Sequence[dict[int, float]]) -> float:
    """Mean nDCG@10 with linear gains, as in BEIR and trec_eval's `ndcg_cut.10`.

    Args:
        queries: [q, dimension].
        documents: [d, dimension], d >= 2.
        gains: for each query its judged documents' row numbers and their gains.
    """
    block = 256
    figures: list[float] = []
    for start in range(0, len(queries), block):
        scores = queries[start : start + block] @ documents.T
        truth = np.zeros_like(scores)
        for row, judged in enumerate(gains[start : start + block]):
            truth[row, list(judged)] = list(judged.values())
        figures += [float(ndcg_score([t], [s], k=10, ignore_ties=True)) for t, s in zip(truth, scores, strict=True)]
    return float(np.mean(figures))


def linear_probe_accuracy(
    train: Vectors, train_labels: Labels, test: Vectors, test_labels: Labels, *, seed: int
) -> float:
    """Accuracy on `test` of a logistic regression trained on `train`."""
    classifier = LogisticRegression(max_iter=1000, random_state=seed).fit(train, train_labels)
    return float(classifier.score(test, test_labels))


def few_shot_rows(labels: Labels, *, shots: int, seed: int) -> npt.NDArray[np.intp]:
    """Row numbers of up to `shots` rows of each label, drawn by `seed`."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    return np.concatenate([shuffled[labels[shuffled] == label][:shots] for label in np.unique(labels)])


def clustering_v_measure(vectors: Vectors, labels: Labels, *, seed: int) -> float:
    """V-measure of k-means with as many clusters as there are labels."""
    clusters = KMeans(n_clusters=len(np.unique(labels)), n_init=1, random_state=seed).fit_predict(vectors)
    return float(v_measure_score(labels, clusters))


def neighbour_accuracy(
    train: Vectors, train_outputs: Labels, test: Vectors, test_outputs: Labels, *, neighbours: int
) -> float:
    """Share of test rows whose `neighbours` nearest train rows vote, weighted by nearness, for the right output."""
    classifier = KNeighborsClassifier(min(neighbours, len(train)), weights="distance", metric="cosine")
    return float(classifier.fit(train, train_outputs).score(test, test_outputs))
