"""Hybrid semantic fusion of AdaCLIP: the most anomalous patches, clustered, join the image vector.

The published code clusters each image with scikit-learn on the CPU, unseeded. The k-means here follows the same
recipe (greedy k-means++, Lloyd's iterations) for all images at once, on their device, with draws that a seed fixes
and that are the same for each image, so that a result depends neither on the batch nor on the order.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from headclip.errors import InputError

Clustering = Literal["torch", "sklearn"]


def squared_distances(points: Tensor, centres: Tensor) -> Tensor:
    """(B, n, D) and (B, k, D) -> (B, n, k)."""
    cross = points @ centres.transpose(1, 2)
    lengths = points.square().sum(dim=-1)[:, :, None] + centres.square().sum(dim=-1)[:, None]
    return (lengths - 2 * cross).clamp(min=0)


def take(points: Tensor, indices: Tensor) -> Tensor:
    """Rows of (B, n, D) at (B, m) -> (B, m, D)."""
    return points.gather(1, indices[:, :, None].expand(-1, -1, points.shape[-1]))


def first_centres(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Greedy k-means++ (Arthur and Vassilvitskii, 2007): of some candidates, drawn by their squared distance to the
    centres so far, the one that lowers the sum of squared distances most. (B, n, D) -> (B, clusters, D)."""
    count, trials = points.shape[1], 2 + int(math.log(clusters))
    first = int(torch.randint(count, (1,), generator=generator))
    centres = [points[:, first]]
    nearest = squared_distances(points, centres[0][:, None])[..., 0]  # (B, n)
    for _ in range(1, clusters):
        draws = torch.rand(trials, generator=generator, dtype=torch.float64).to(points.device, points.dtype)
        mass = nearest.cumsum(dim=1)  # (B, n)
        wanted = draws * mass[:, -1:]  # (B, trials)
        candidates = torch.searchsorted(mass, wanted.contiguous()).clamp(max=count - 1)
        chosen = take(points, candidates)  # (B, trials, D)
        lowered = torch.minimum(nearest[:, :, None], squared_distances(points, chosen))  # (B, n, trials)
        best = lowered.sum(dim=1).argmin(dim=1)[:, None]  # (B, 1)
        nearest = lowered.gather(2, best[:, :, None].expand(-1, count, 1))[..., 0]
        centres.append(take(chosen, best)[:, 0])
    return torch.stack(centres, dim=1)


def mean_of_members(points: Tensor, labels: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Cluster means (B, clusters, D), zero where a cluster is empty, and member counts (B, clusters)."""
    member = F.one_hot(labels, clusters).to(points.dtype)  # (B, n, clusters)
    counts = member.sum(dim=1)
    return member.transpose(1, 2) @ points / counts.clamp(min=1)[:, :, None], counts


@torch.no_grad()
def kmeans(points: Tensor, clusters: int, *, seed: int = 0, iterations: int = 300) -> Tensor:
    """Cluster the points of each image on its own.

    Args:
        points: (B, n, D) with n >= clusters >= 1.

    Returns:
        (B, n) labels from 0 to clusters - 1. A cluster that loses all members takes the point that is farthest from
        its own centre, so that empty ones remain only where points coincide.

    Raises:
        InputError: fewer points than clusters.

    >>> kmeans(torch.tensor([[[0.0], [0.1], [5.0], [5.1]]]), 2)[0].tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])
    True
    """
    if not 1 <= clusters <= points.shape[1]:
        raise InputError(f"{points.shape[1]} points cannot form {clusters} clusters")
    points = points.detach().float()
    points = points - points.mean(dim=1, keepdim=True)  # keeps the differences of distances exact
    centres = first_centres(points, clusters, torch.Generator().manual_seed(seed))
    labels = torch.full(points.shape[:2], -1, device=points.device)
    for _ in range(iterations):
        distances = squared_distances(points, centres)  # (B, n, clusters)
        found = distances.argmin(dim=2)
        found = refill(found, distances, clusters)
        if torch.equal(found, labels):
            break
        labels = found
        centres, _ = mean_of_members(points, labels, clusters)
    return labels


def refill(labels: Tensor, distances: Tensor, clusters: int) -> Tensor:
    """Give each empty cluster the point that lies farthest from its centre; rare, hence image by image."""
    counts = F.one_hot(labels, clusters).sum(dim=1)  # (B, clusters)
    for image in (counts == 0).any(dim=1).nonzero().flatten().tolist():
        own = distances[image].gather(1, labels[image][:, None])[:, 0].clone()  # (n,)
        for empty in (counts[image] == 0).nonzero().flatten().tolist():
            sizes = torch.bincount(labels[image], minlength=clusters)
            own[sizes[labels[image]] == 1] = 0  # a cluster of one keeps its point
            farthest = int(own.argmax())
            if own[farthest] <= 0:
                break
            labels[image, farthest], own[farthest] = empty, 0
    return labels


def sklearn_labels(points: Tensor, clusters: int, seed: int) -> Tensor:
    """The same by scikit-learn, one image after the other on the CPU, as in the published code but seeded.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import KMeans  # type: ignore[import-untyped]
    except ImportError as error:
        raise InputError(
            "clustering 'sklearn' needs scikit-learn (pip install scikit-learn); 'torch' needs nothing"
        ) from error
    arrays = points.detach().float().cpu().numpy()
    found = [KMeans(n_clusters=clusters, n_init="auto", random_state=seed).fit_predict(array) for array in arrays]
    return torch.stack([torch.from_numpy(labels).long() for labels in found]).to(points.device)


def most_anomalous(features: list[Tensor], anomaly: Tensor, count: int) -> list[Tensor]:
    """Of each tap's (B, N, E), the `count` patches (at most all) of the highest anomaly (B, N), highest first."""
    chosen = anomaly.detach().topk(min(count, anomaly.shape[1]), dim=1).indices
    return [take(tap, chosen) for tap in features]


def fuse_clusters(chosen: list[Tensor], labels: Tensor, clusters: int) -> Tensor:
    """The mean of the cluster means over all taps, of unit length: each cluster counts alike, whatever its size.

    chosen: for each tap (B, n, E). labels: (B, n). Returns (B, E); gradients reach the features, not the labels.
    """
    means, counts = mean_of_members(torch.stack(chosen).mean(dim=0), labels, clusters)  # (B, clusters, E)
    filled = (counts > 0).sum(dim=1, keepdim=True)
    return F.normalize(means.sum(dim=1) / filled, dim=-1)


def semantic_vector(
    features: list[Tensor], anomaly: Tensor, clusters: int, *, clustering: Clustering = "torch", seed: int = 0
) -> Tensor:
    """Hybrid semantic fusion: (B, E) unit vector of the clusters among the 5 * clusters most anomalous patches.

    Args:
        features: for each tap (B, N, E) unit vectors of the patches.
        anomaly: (B, N) probability of abnormal, from the taps' mean logits.
        clusters: their number; of a smaller image as many as it has patches.
    """
    chosen = most_anomalous(features, anomaly, 5 * clusters)
    clusters = min(clusters, chosen[0].shape[1])
    points = torch.cat(chosen, dim=-1)  # (B, n, taps * E)
    labels = kmeans(points, clusters, seed=seed) if clustering == "torch" else sklearn_labels(points, clusters, seed)
    return fuse_clusters(chosen, labels, clusters)
