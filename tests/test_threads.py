"""Parts of a computation on several threads."""

import threading
import time

import pytest
import torch

from mpm.threads import side_by_side


@pytest.fixture(params=[1, 3])
def threads(request):
    "Torch's number of them, which is as before when all is done"
    torch.set_num_threads(request.param)
    yield request.param
    assert torch.get_num_threads() == request.param


def test_results_come_in_order_whoever_is_first(threads):
    "The first part takes longest"

    def wait(part):
        time.sleep(0.05 if part == 0 else 0)
        return part

    assert list(side_by_side(wait, range(9))) == list(range(9))


def test_each_part_is_computed_on_one_thread_as_gradients_are_set(threads):
    def facts(_):
        return torch.get_num_threads(), torch.is_grad_enabled(), threading.get_ident()

    with torch.no_grad():
        found = list(side_by_side(facts, range(3 * threads)))
    numbers, gradients, places = zip(*found, strict=True)
    assert set(numbers) == {1} and set(gradients) == {False}
    assert (threading.get_ident() in places) == (threads == 1)
    assert all(enabled for _, enabled, _ in side_by_side(facts, range(3)))


def test_only_a_few_parts_are_taken_ahead(threads):
    "A map's windows would not all fit into memory"
    taken = []

    def parts():
        for part in range(50):
            taken.append(part)
            yield part

    for done, _ in enumerate(side_by_side(lambda part: part, parts()), start=1):
        assert len(taken) <= done + threads


def test_what_goes_wrong_is_told_and_the_rest_is_not_begun(threads):
    begun = []

    def fail(part):
        begun.append(part)
        if part == 2:
            raise RuntimeError("not enough memory")
        return part

    with pytest.raises(RuntimeError, match="not enough memory"):
        list(side_by_side(fail, range(100)))
    assert len(begun) <= 3 + 2 * threads


def test_gradients_of_inputs_are_those_of_one_thread(threads):
    "Of a small network that several threads share"
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.GELU(), torch.nn.Linear(8, 1))
    parts = torch.randn(20, 4, 5)

    def gradient(part):
        part = part.clone().requires_grad_(True)
        return torch.autograd.grad(net(part).sum(), part)[0]

    expected = torch.stack([gradient(part) for part in parts])
    assert torch.equal(torch.stack(list(side_by_side(gradient, parts))), expected)
    assert all(weight.grad is None for weight in net.parameters())
