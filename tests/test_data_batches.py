"""Batches: every example once an epoch, padding masked, the order a function of seed and epoch."""

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flaxdigits.data.batches import BatchPlan, epoch_order

pytestmark = pytest.mark.quick


def epoch_of(plan: BatchPlan, epoch: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Positions and masks of an epoch's steps: [steps, rows]."""
    places = np.arange(plan.padded_batch_size, dtype=np.int32)
    first = epoch * plan.steps_per_epoch
    steps = [plan.select(np.int32(step), places)
             for step in range(first, first + plan.steps_per_epoch)]
    positions, masks = (np.array(values) for values in zip(*steps, strict=True))
    return positions, masks


@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 8))
@example(12, 4, 1)  # even
@example(13, 4, 4)  # a last batch of one
@example(10, 6, 4)  # the batch does not divide over the devices
@example(3, 20, 8)  # an epoch smaller than a batch
def test_every_example_exactly_once_an_epoch(examples, batch_size, devices):
    plan = BatchPlan(examples, batch_size, devices)
    assert plan.padded_batch_size % devices == 0
    rows = min(batch_size, examples)
    assert rows <= plan.padded_batch_size < rows + devices
    positions, masks = epoch_of(plan)
    assert positions.shape == masks.shape == (-(-examples // batch_size), plan.padded_batch_size)
    np.testing.assert_array_equal(positions[masks], np.arange(examples))
    sizes = masks.sum(1)
    assert (sizes[:-1] == batch_size).all()
    assert sizes[-1] == examples - batch_size * (len(sizes) - 1)
    assert (positions >= 0).all()
    assert (positions < examples).all()  # of padding too: it is read, though not used
    for found, first in zip(epoch_of(plan, epoch=3), (positions, masks), strict=True):
        np.testing.assert_array_equal(found, first)


def test_batches_are_the_same_over_any_number_of_devices():
    one_positions, one_masks = epoch_of(BatchPlan(53, 10, 1))
    for devices in (2, 3, 4, 7, 8):
        positions, masks = epoch_of(BatchPlan(53, 10, devices))
        np.testing.assert_array_equal(masks.sum(1), one_masks.sum(1))
        np.testing.assert_array_equal(positions[masks], one_positions[one_masks])


def test_the_positions_of_one_device_are_a_part_of_the_batch():
    plan = BatchPlan(53, 10, 4)
    positions, masks = epoch_of(plan)
    for step in range(plan.steps_per_epoch):
        found, mask = plan.select(np.int32(step), np.arange(3, 6, dtype=np.int32))
        np.testing.assert_array_equal(found, positions[step, 3:6])
        np.testing.assert_array_equal(mask, masks[step, 3:6])


def test_the_order_is_a_permutation_of_its_epoch_and_seed():
    index = np.random.default_rng(0).choice(1000, 200, replace=False).astype(np.int32)
    order = jax.jit(epoch_order)

    def of(seed: int, epoch: int) -> np.ndarray:
        return np.asarray(order(jax.random.key(seed), epoch, index))

    found = [of(seed, epoch) for seed, epoch in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]]
    for values in found:
        assert values.dtype == np.int32
        np.testing.assert_array_equal(np.sort(values), np.sort(index))
    assert len({values.tobytes() for values in [index, *found]}) == 6
    np.testing.assert_array_equal(of(0, 1), found[1])
