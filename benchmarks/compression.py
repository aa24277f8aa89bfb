"""Accuracy of a small LeNet on handwritten digits against its number of weights.

    python benchmarks/compression.py [--epochs 300] [--seeds 1] [--picture FILE]

Factorised networks (`dr.networks.sparsify`, single weights, start="matched", lam rising over the
first quarter of the epochs) beside magnitude pruning of the same network: train, zero the smallest
weights over all layers, train on with these held at zero for a third of the epochs. scikit-learn's
8 x 8 digits, 1,347 to train and 450 to test; batches of 64, SGD with momentum .9 and a cosine
schedule (rates .1, .2, .2 at D = 2, 3, 4), gradients cut to norm 1, 300 epochs (6,600 steps).

Measured, means over seeds 0, 1, 2 of network, split and order (each a run of its own), with the
accuracy of each; the dense network (10,242 weights in kernels) has .978 (.973, .984, .976). The
standard error of one accuracy is about .009. `units` are those of all layers that pruning leaves
of 158.

    method      lam     weights   accuracy   of each seed       units
    D = 2       .003        892      .963    .967  .964  .958      79
    D = 2       .006        299      .960    .960  .958  .962      45
    D = 3       .0015       956      .970    .980  .969  .962     108
    D = 3       .003        239      .958    .958  .953  .962      66
    D = 4       .0015       945      .962    .962  .960  .964     114
    D = 4       .003        245      .962    .958  .964  .962      72
    magnitude             1,025      .974    .976  .969  .976
    magnitude               513      .961    .960  .953  .971
    magnitude               308      .890    .882  .924  .862
    magnitude               205      .380    .102  .693  .344
    magnitude               103      .101    .100  .102  .100

With 900 weights the factorised networks lose 0.7 to 1.6 points to the dense one, magnitude pruning
0.4 with 1,025. With 240 to 300 weights the factorised ones lose 1.6 to 2.0 points, magnitude
pruning cuts whole layers off; the depths do not differ beyond the error.
Exact zeros need steps: a weight that is not needed falls like exp(-2 lam rate / (1 - .9))
a step, so that the 1e-6 of `collapse` takes a sum of rates of 0.6 / lam. In trials of 100 to 400
epochs at lam from .0003 to .003 (most without the cut of gradients) no network of D = 3 or 4 with
start="fresh" learned anything; nor did one with start="matched" and a rate of .4 at D = 4.
"""

from __future__ import annotations

import argparse

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from deepregress.factorised import SparsitySchedule, collapse, sparse_optimizer, sparsify, sparsity
from deepregress.pruning import prune

LAMBDAS = {2: (3e-3, 6e-3), 3: (1.5e-3, 3e-3), 4: (1.5e-3, 3e-3)}
SHARES = (0.1, 0.05, 0.03, 0.02, 0.01)
BATCH = 64
STEPS = 22
"""Batches of an epoch, one call of TensorFlow."""


def lenet() -> keras.Model:
    """Two convolutions and three dense layers, 10,242 weights in kernels."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(6, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(84, activation="relu"),
            keras.layers.Dense(42, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


def trained(
    model: keras.Model, data: tuple[np.ndarray, ...], epochs: int, depth: int = 2
) -> keras.Model:
    """Fitted by SGD with the learning rate of a depth."""
    X, y = data[0], data[2]
    optimizer = sparse_optimizer(depth, steps=epochs * int(np.ceil(len(X) / BATCH)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss=loss, steps_per_execution=STEPS)
    ramp = SparsitySchedule(epochs // 4, epochs)
    model.fit(X, y, epochs=epochs, batch_size=BATCH, verbose=0, callbacks=[ramp])
    return model


def accuracy(model: keras.Model, data: tuple[np.ndarray, ...]) -> float:
    """On the test pictures."""
    return float(np.mean(np.argmax(np.asarray(model(data[1])), axis=1) == data[3]))


def factorised(data: tuple[np.ndarray, ...], epochs: int) -> list[dict[str, object]]:
    """Rows of the table for each depth and lam."""
    rows = []
    for depth, lambdas in LAMBDAS.items():
        for lam in lambdas:
            model = sparsify(lenet(), depth=depth, lam=lam, start="matched")
            plain = collapse(trained(model, data, epochs, depth))
            smaller = prune(plain)
            rows.append(
                {
                    "method": f"depth {depth}",
                    "lam": lam,
                    "weights": int(sparsity(plain).loc["total", "nonzero"]),
                    "accuracy": accuracy(plain, data),
                    "pruned": accuracy(smaller, data),
                    "units": sum(layer.kernel.shape[-1] for layer in kernels(smaller)),
                }
            )
            print(rows[-1], flush=True)
    return rows


def kernels(model: keras.Model) -> list[keras.Layer]:
    """Layers with a kernel."""
    return [layer for layer in model.layers if hasattr(layer, "kernel")]


class HeldAtZero(keras.callbacks.Callback):
    """Weights that were cut stay zero."""

    def __init__(self, masks: list[np.ndarray]) -> None:
        super().__init__()
        self.masks = masks

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Zero them again."""
        for layer, mask in zip(kernels(self.model), self.masks, strict=True):
            layer._kernel.assign(layer.kernel * mask)


def magnitude(data: tuple[np.ndarray, ...], epochs: int) -> list[dict[str, object]]:
    """Rows of the table for magnitude pruning."""
    model = trained(lenet(), data, epochs)
    dense = model.get_weights()
    rows = [row("dense", 1.0, model, data)]
    for share in SHARES:
        model.set_weights(dense)
        sizes = np.concatenate([np.abs(layer.kernel).ravel() for layer in kernels(model)])
        least = np.quantile(sizes, 1.0 - share)
        masks = [np.asarray(np.abs(layer.kernel) >= least, "float32") for layer in kernels(model)]
        further = max(1, epochs // 3)
        optimizer = sparse_optimizer(2, steps=further * int(np.ceil(len(data[0]) / BATCH)))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss=loss)
        model.fit(
            data[0],
            data[2],
            epochs=further,
            batch_size=BATCH,
            verbose=0,
            callbacks=[HeldAtZero(masks)],
        )
        rows.append(row("magnitude", share, model, data))
        print(rows[-1], flush=True)
    return rows


def row(
    method: str, setting: float, model: keras.Model, data: tuple[np.ndarray, ...]
) -> dict[str, object]:
    """One row of the table."""
    weights = int(sparsity(model).loc["total", "nonzero"])
    return {"method": method, "lam": setting, "weights": weights, "accuracy": accuracy(model, data)}


def draw(rows: list[dict[str, object]], path: str) -> None:
    """Accuracy against the number of weights, one line for each method."""
    figure, axes = plt.subplots(figsize=(6, 4))
    for method, own in pd.DataFrame(rows).groupby("method"):
        mean = own.groupby("lam")[["weights", "accuracy"]].mean().sort_values("weights")
        axes.plot(mean["weights"], mean["accuracy"], "o-", label=method)
    axes.set(xscale="log", xlabel="weights that are not zero", ylabel="accuracy on test pictures")
    axes.legend()
    figure.savefig(path, dpi=100, bbox_inches="tight")


def main() -> None:
    """Print the means over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--picture", default="")
    options = parser.parse_args()
    pictures, labels = load_digits(return_X_y=True)
    images = (pictures / 16.0).reshape(-1, 8, 8, 1).astype("float32")
    rows = []
    for seed in range(options.seeds):
        keras.utils.set_random_seed(seed)
        data = tuple(train_test_split(images, labels, random_state=seed, stratify=labels))
        rows += factorised(data, options.epochs) + magnitude(data, options.epochs)
    table = pd.DataFrame(rows).groupby(["method", "lam"]).mean().round(4)
    print(table.to_string())
    if options.picture:
        draw(rows, options.picture)


if __name__ == "__main__":
    main()
