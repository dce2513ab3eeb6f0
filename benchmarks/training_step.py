"""Compare one RA training step with the literal definition in the tests: counted FLOPs, equal
losses, and interleaved timings.

python benchmarks/training_step.py [--pairs 5] [--batch 8] [--channels 64 128 256 512 512]

With `--variants` it times the step, and one with reconstruction and KL alone, in float32 and under
bfloat16 autocast, the latter compiled too.
"""

import argparse
import copy
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from pathology_screen.engines.introspective import IntrospectiveWeights, introspective_step
from pathology_screen.networks.introspective_vae import IntrospectiveVAE

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "engines"))
from literal_introspective_step import literal_step


def adam(network):
    halves = (network.encoder, network.decoder)
    return [torch.optim.Adam(half.parameters(), lr=5e-5) for half in halves]


def variants(network, image, introspective, repeats):
    """Median CPU seconds of a step of each kind; those of compiling do not count."""
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-5)
    mean_squared = torch.nn.functional.mse_loss

    def variational(model):
        optimizer.zero_grad()
        mean, log_variance = model.encode(image)
        painted = model.decoder(mean + torch.randn_like(mean) * (0.5 * log_variance).exp())
        kl = (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        (mean_squared(painted.float(), image) + kl).backward()
        optimizer.step()

    steps = {"introspective": introspective, "variational": lambda: variational(network)}
    steps["variational, compiled"] = torch.compile(lambda: variational(network))
    for name, step in steps.items():
        for bfloat16 in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                step()
                seconds = []
                for _ in range(repeats):
                    start = time.process_time()
                    step()
                    seconds.append(time.process_time() - start)
            kind = f"{name}, {'bfloat16' if bfloat16 else 'float32'}"
            print(json.dumps({kind: statistics.median(seconds)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--channels", type=int, nargs="+", default=[64, 128, 256, 512, 512])
    parser.add_argument("--latent", type=int, default=128)
    parser.add_argument("--norm", default="batch", choices=("batch", "group"))
    parser.add_argument("--variants", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    ours = IntrospectiveVAE(channels=options.channels, latent=options.latent, norm=options.norm)
    literal = copy.deepcopy(ours)
    ours = ours.to(memory_format=torch.channels_last)
    image, noise = (
        torch.rand(options.batch, 1, 128, 128),
        torch.randn(4, options.batch, options.latent),
    )
    weights, literal_weights = IntrospectiveWeights(), IntrospectiveWeights(gamma_rec=1e-8)
    ours_optimizers, literal_optimizers = adam(ours), adam(literal)

    def run_ours():
        images = image.contiguous(memory_format=torch.channels_last)
        step = introspective_step(ours, *ours_optimizers, images, noise, weights)
        return step["encoder_loss"], step["decoder_loss"]

    def run_literal():
        step = literal_step(literal, *literal_optimizers, image, noise, literal_weights)
        return [loss.item() for loss in step]

    if options.variants:
        variants(ours, image, run_ours, options.pairs)
        return
    flops, losses = [], []
    for run in (run_ours, run_literal):
        with FlopCounterMode(display=False) as counter:
            losses.append(run())
        flops.append(counter.get_total_flops())
    each = [round(count / options.batch / 1e9, 2) for count in flops]
    print(json.dumps({"GFLOP per image": each, "FLOP ratio": flops[0] / flops[1]}))
    print(json.dumps({"losses of the first step": losses}))
    ratios = []
    for _ in range(options.pairs):
        seconds = []
        for run in (run_ours, run_literal):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[1] / seconds[0])
        print(json.dumps({"seconds": seconds, "literal / ours": ratios[-1]}), flush=True)
    if ratios:
        median = statistics.median(ratios)
        print(json.dumps({"median literal / ours": median, "pairs": len(ratios)}))


if __name__ == "__main__":
    main()
