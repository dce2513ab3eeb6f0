"""Exponential moving average of the weights."""

from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class AveragedWeights(AveragedModel):
    """Handler of a trainer: its network with the exponential moving average of the weights.

    After n iterations the latest weights count max(1 - decay, 9 / (9 + n)), so that the average
    forgets where training started, however short it is. Called, it is the network with the averaged
    weights; `module` is that network.

    Args:
        network: what is trained.
        decay: share that an iteration leaves in the long run; 0 follows the network exactly.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        def average(averaged: Tensor, current: Tensor, iterations: Tensor | int) -> Tensor:
            return averaged.lerp(current, max(1 - decay, 9 / (9 + int(iterations))))

        super().__init__(network, avg_fn=average)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.follow)

    def follow(self, engine: Engine) -> None:
        self.update_parameters(engine.network)  # type: ignore[attr-defined]
