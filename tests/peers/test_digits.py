"""Digits end to end compared with PyTorch: the same weights, batches and losses for fifty steps in float64."""

from typing import Any

import numpy as np
import pytest

from bnengine.data import ArraySource, Preprocessing, groups, load_digits, order, split_dataset
from bnengine.layers import Activation, BatchNorm, Dense
from bnengine.losses import SoftmaxCrossEntropy
from bnengine.network.sequential import Sequential
from bnengine.optim.optimizers import Adam
from bnengine.training.step import Step
from tests.peers.twin import Twin, array

pytestmark = pytest.mark.peers
BATCH, STEPS, RATE = 64, 50, 1e-3


def test_the_losses_of_fifty_steps_are_equal(torch: Any) -> None:
    digits = load_digits()
    train, valid = split_dataset(digits, seed=0, task="classification")
    preprocessing = Preprocessing.fit(digits, train)
    source, held_out = (
        ArraySource(digits.x, digits.y, preprocessing=preprocessing, indices=rows, dtype="float64")
        for rows in (train, valid)
    )
    hidden = [Dense(64, 100), BatchNorm(100), Activation("relu"), Dense(100, 100), BatchNorm(100), Activation("relu")]
    network = Sequential(*hidden, Dense(100, 10), dtype="float64", seed=0)
    step = Step(network, Adam(), SoftmaxCrossEntropy())
    step.schedule([RATE])
    twin = Twin(network)
    theirs = torch.optim.Adam(twin.groups(0.0), lr=RATE)

    positions = [
        rows[group]
        for epoch in range(3)
        for rows in [order(source.rows, seed=0, epoch=epoch)]
        for group in groups(len(rows), BATCH)
    ]
    curve, curve_theirs = [], []
    for chosen in positions[:STEPS]:
        batch = source.take(chosen)
        step([batch])
        curve.append(step.report().loss)
        theirs.zero_grad()
        loss = torch.nn.functional.cross_entropy(twin(twin.tensor(batch.x), training=True), torch.tensor(batch.y))
        loss.backward()
        theirs.step()
        curve_theirs.append(float(loss.detach()))
    assert len(curve) == STEPS
    np.testing.assert_allclose(curve, curve_theirs, rtol=1e-8)
    assert curve[-1] < 0.2 * curve[0], "it learns"

    every = held_out.take(np.arange(held_out.rows))
    outputs, outputs_theirs = network.predict(every.x), array(twin(twin.tensor(every.x), training=False))
    np.testing.assert_allclose(outputs, outputs_theirs, rtol=0, atol=1e-8 * np.abs(outputs_theirs).max())
    assert np.mean(outputs.argmax(axis=1) == every.y) > 0.9
