"""Training on one thread."""

import pytest
import torch


@pytest.fixture
def one_thread_and_default_dtype():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(threads)
