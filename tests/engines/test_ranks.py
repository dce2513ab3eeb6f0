"""Several processes train as one does."""

import subprocess
import sys

import pytest
import tiny_training
import torch
from tiny_training import equal, train, weights

pytestmark = pytest.mark.usefixtures("one_thread_and_default_dtype")

SLOW = [pytest.param(method, marks=pytest.mark.slow) for method in ("ae_s", "dae", "mkd")]


@pytest.mark.parametrize("method", ["ra", "vae", *SLOW])
def test_two_ranks_reproduce_one_process_with_the_double_batch(method, tmp_path):
    """In float64, since Adam divides rounding errors by gradients near zero."""
    torchrun = [*("-m", "torch.distributed.run"), "--standalone", "--nproc_per_node=2"]
    command = [sys.executable, *torchrun, tiny_training.__file__, method, str(tmp_path), "2", "2"]
    subprocess.run(command, check=True, capture_output=True)
    torch.set_default_dtype(torch.float64)
    one = weights(train(tmp_path / "one", 2, 4, method=method))
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert equal(*ranks)
    for name, value in one.items():
        torch.testing.assert_close(ranks[0][name], value, rtol=1e-5, atol=1e-12)
