"""Trains a small network on handwritten digits, three times, and logs everything to trackd.

    python scripts/examples/digits.py

The data are the 1,797 scanned digits that come with scikit-learn; the network is 64 -> 64 -> 10, in NumPy, so that
every number logged below is one you can see being made.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import trackd
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

Array = NDArray[np.float64]
LEARNING_RATES = (0.02, 0.1, 0.5)


class Network:
    """One hidden layer of ReLU and a softmax."""

    def __init__(self, chance: np.random.Generator, inputs: int, hidden: int, classes: int) -> None:
        self.weights = [
            chance.normal(0, np.sqrt(2 / inputs), (inputs, hidden)),
            np.zeros(hidden),
            chance.normal(0, np.sqrt(2 / hidden), (hidden, classes)),
            np.zeros(classes),
        ]

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Activations of the hidden layer, and the probability of each class, (rows, classes)."""
        w1, b1, w2, b2 = self.weights
        hidden = np.maximum(x @ w1 + b1, 0)
        logits = hidden @ w2 + b2
        exp = np.exp(logits - logits.max(axis=1, keepdims=True))
        return hidden, exp / exp.sum(axis=1, keepdims=True)

    def evaluate(self, x: Array, y: NDArray[np.int64]) -> tuple[float, float]:
        """Mean cross-entropy in nats, and accuracy."""
        _, p = self.forward(x)
        loss = -np.log(p[np.arange(len(y)), y] + 1e-12).mean()
        return float(loss), float((p.argmax(axis=1) == y).mean())

    def gradients(self, x: Array, y: NDArray[np.int64]) -> list[Array]:
        """Of the mean cross-entropy, one per weight."""
        hidden, p = self.forward(x)
        error = p.copy()
        error[np.arange(len(y)), y] -= 1
        error /= len(y)
        back = (error @ self.weights[2].T) * (hidden > 0)
        return [x.T @ back, back.sum(axis=0), hidden.T @ error, error.sum(axis=0)]

    def descend(self, gradients: list[Array], learning_rate: float) -> None:
        """One step of plain stochastic gradient descent."""
        for i, gradient in enumerate(gradients):
            self.weights[i] = self.weights[i] - learning_rate * gradient


def train(learning_rate: float, steps: int, batch: int = 64) -> dict[str, Any]:
    """One run. Returns what was logged: {"id", "config", "rows", "summary"}."""
    digits = load_digits()
    data = train_test_split(digits.data / 16, digits.target, test_size=0.25, random_state=0, stratify=digits.target)
    x_train, x_val, y_train, y_val = data
    chance = np.random.default_rng(0)
    network = Network(chance, inputs=64, hidden=64, classes=10)
    config = {"learning_rate": learning_rate, "batch_size": batch, "hidden": 64, "steps": steps, "optimizer": "SGD"}
    rows: list[dict[str, float]] = []
    best = 0.0
    with trackd.init(project="digits", name=f"lr-{learning_rate}", config=config) as run:
        for step in range(steps):
            picked = chance.integers(0, len(x_train), batch)
            x, y = x_train[picked], y_train[picked]
            gradients = network.gradients(x, y)
            network.descend(gradients, learning_rate)
            loss, accuracy = network.evaluate(x, y)
            norm = float(np.sqrt(sum((g**2).sum() for g in gradients)))
            row = {"train/loss": loss, "train/accuracy": accuracy, "train/gradient_norm": norm}
            if step % 10 == 9:
                row["val/loss"], row["val/accuracy"] = network.evaluate(x_val, y_val)
                best = max(best, row["val/accuracy"])
            run.log(row)
            rows.append(row)
        run.summary["best_val_accuracy"] = best
    print(f"  learning rate {learning_rate}: best validation accuracy {best:.3f}", flush=True)
    return {"id": run.id, "config": config, "rows": rows, "summary": {"best_val_accuracy": best}}


def main() -> None:
    parser = argparse.ArgumentParser(description="three runs on scikit-learn's digits")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--record", type=Path, help="also write what was logged to this JSON file")
    options = parser.parse_args()
    logged = [train(rate, options.steps) for rate in LEARNING_RATES]
    if options.record:
        options.record.write_text(json.dumps(logged))


if __name__ == "__main__":
    main()
