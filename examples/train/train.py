"""Train a small neural network to tell two interleaved half circles apart, on the standard library alone.

The network has two inputs, one hidden layer and one output. It learns by mini-batch gradient descent from
data that the script makes. As a job it takes its inputs from the run's config:

    prefect-launch submit -c examples/train/job.yaml --set learning_rate=0.05 --follow

By hand it needs `launch_run.py`, one file without dependencies, on the path:

    PYTHONPATH=src/launch_prefect/runtime python examples/train/train.py --epochs 10
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from pathlib import Path

import launch_run

HIDDEN = 24
BATCH = 20
TRAIN_SIZE = 10000
TEST_SIZE = 1000
NOISE = 0.2
# A network that guesses has a loss of ln 2 = 0.69; one far above that is running away.
DIVERGED = 10.0

Point = tuple[float, float, int]


def make_points(count: int, rng: random.Random) -> list[Point]:
    """Points on two interleaved half circles, with noise; the last number says which half circle."""
    points = []
    for number in range(count):
        label = number % 2
        angle = rng.uniform(0, math.pi)
        x, y = math.cos(angle), math.sin(angle)
        if label:
            x, y = 1 - x, 0.5 - y
        points.append((x + rng.gauss(0, NOISE), y + rng.gauss(0, NOISE), label))
    return points


class Network:
    """Two inputs, `HIDDEN` units with tanh, one output: the log-odds of label 1."""

    def __init__(self, hidden: list[list[float]], output: list[float], bias: float) -> None:
        self.hidden = hidden  # for each unit: weight of x, weight of y, bias
        self.output = output
        self.bias = bias

    @classmethod
    def random(cls, rng: random.Random) -> Network:
        hidden = [[rng.gauss(0, 1), rng.gauss(0, 1), 0.0] for _ in range(HIDDEN)]
        return cls(hidden, [rng.gauss(0, 1 / math.sqrt(HIDDEN)) for _ in range(HIDDEN)], 0.0)

    def forward(self, x: float, y: float) -> tuple[list[float], float]:
        """Activations of the hidden units, and the log-odds."""
        active = [math.tanh(a * x + b * y + c) for a, b, c in self.hidden]
        return active, self.bias + sum(w * h for w, h in zip(self.output, active, strict=True))

    def train_batch(self, batch: list[Point], learning_rate: float) -> float:
        """One step of gradient descent; returns the summed loss before it."""
        hidden_gradient = [[0.0, 0.0, 0.0] for _ in self.hidden]
        output_gradient = [0.0] * HIDDEN
        bias_gradient = loss = 0.0
        for x, y, label in batch:
            active, odds = self.forward(x, y)
            loss += log_loss(odds, label)
            error = sigmoid(odds) - label
            bias_gradient += error
            for unit, (weight, h) in enumerate(zip(self.output, active, strict=True)):
                output_gradient[unit] += error * h
                back = error * weight * (1 - h * h)
                gradient = hidden_gradient[unit]
                gradient[0] += back * x
                gradient[1] += back * y
                gradient[2] += back
        rate = learning_rate / len(batch)
        self.bias -= rate * bias_gradient
        self.output = [w - rate * g for w, g in zip(self.output, output_gradient, strict=True)]
        self.hidden = [
            [w - rate * g for w, g in zip(weights, gradient, strict=True)]
            for weights, gradient in zip(self.hidden, hidden_gradient, strict=True)
        ]
        return loss

    def accuracy(self, points: list[Point]) -> float:
        """Share of the points whose label the network tells."""
        return sum((self.forward(x, y)[1] > 0) == (label == 1) for x, y, label in points) / len(points)

    def save(self, path: Path) -> None:
        """Write the model file."""
        path.write_text(json.dumps({"hidden": self.hidden, "output": self.output, "bias": self.bias}))

    @classmethod
    def load(cls, path: Path) -> Network:
        """Read a model file."""
        return cls(**json.loads(path.read_text()))


def sigmoid(odds: float) -> float:
    return 1 / (1 + math.exp(-odds)) if odds > -500 else 0.0


def log_loss(odds: float, label: int) -> float:
    """Cross-entropy, in the form that does not overflow: log(1 + exp(-z))."""
    z = odds if label else -odds
    return max(-z, 0.0) + math.log1p(math.exp(-abs(z)))


def train(learning_rate: float, epochs: int, seed: int) -> Network:
    """Train a network, printing and logging each epoch.

    Raises:
        ArithmeticError: The training diverged.
    """
    rng = random.Random(seed)
    points, held_out = make_points(TRAIN_SIZE, rng), make_points(TEST_SIZE, rng)
    network = Network.random(rng)
    print(
        f"Before training: accuracy {network.accuracy(held_out):.1%} on {TEST_SIZE} held-out points",
        flush=True,
    )
    for epoch in range(1, epochs + 1):
        rng.shuffle(points)
        loss = 0.0
        for start in range(0, len(points), BATCH):
            loss += network.train_batch(points[start : start + BATCH], learning_rate)
        loss /= len(points)
        if not loss < DIVERGED:  # also true of NaN
            raise ArithmeticError(
                f"Training diverged in epoch {epoch}: the loss is {loss:.4g}. "
                f"The learning rate {learning_rate:g} is too large; try 0.1."
            )
        accuracy = network.accuracy(held_out)
        print(f"Epoch {epoch:>3}/{epochs}  loss {loss:.4f}  accuracy {accuracy:.1%}", flush=True)
        launch_run.log({"loss": loss, "accuracy": accuracy}, step=epoch)
    accuracy = network.accuracy(held_out)
    path = launch_run.output_dir / "model.json"
    network.save(path)
    if Network.load(path).accuracy(held_out) != accuracy:
        raise ArithmeticError(f"The model file {path} does not give the trained network back.")
    print(f"Trained: accuracy {accuracy:.1%}; the model is in {path}", flush=True)
    return network


def parse_arguments() -> argparse.Namespace:
    """The run's config; options on the command line come before it."""
    config = launch_run.config
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--learning-rate", "--learning_rate", type=float, default=config.get("learning_rate", 0.1))
    parser.add_argument("--epochs", type=int, default=config.get("epochs", 40))
    parser.add_argument("--seed", type=int, default=config.get("seed", 0))
    arguments = parser.parse_args()
    if arguments.epochs < 1:
        parser.error("--epochs: at least 1 is needed")
    if not arguments.learning_rate > 0:
        parser.error("--learning-rate: a number above 0 is needed")
    return arguments


if __name__ == "__main__":
    try:
        train(**vars(parse_arguments()))
    except ArithmeticError as error:
        sys.exit(str(error))
