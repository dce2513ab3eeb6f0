"""Measure weights on unseen healthy slices in a random pose: reconstruction, and AUPRC on synthetic anomalies.

    python benchmarks/synthetic_anomalies.py --dataset_dir DIR --datalist data_lists/oasis.json [--ckpt model.pt]

Healthy test subjects, every n-th axial level, posed by the paper's augmentation. Beside the model stand two controls
without learning: `template` (absolute difference to the training mean at that level, not posed) and `intensity` (the
equalised image). Intervals are 95 % bootstrap intervals over subjects. Prints one JSON object.
"""

import argparse
import json

import numpy as np
import torch
from monai.bundle import ConfigParser
from skimage.metrics import structural_similarity
from sklearn.metrics import average_precision_score
from torch.nn import functional as F

from pathology_screen.anomaly import equalize
from pathology_screen.bundles import bundle_root
from pathology_screen.cohorts import resolve_dataset
from pathology_screen.engines import load_weights, seeded_generator
from pathology_screen.synthetic import add_ellipses, copy_paste
from pathology_screen.transforms import RandomAffineBatch, axial_slices, train_transforms


def interval(values: dict[str, list], statistic, resamples: int = 1000) -> dict[str, float]:
    """Statistic of all subjects' values pooled, and its 95 % bootstrap interval over subjects."""
    rng = np.random.default_rng(0)
    subjects = list(values)
    draws = [[v for s in rng.choice(subjects, len(subjects)) for v in values[s]] for _ in range(resamples)]
    low, high = np.percentile([statistic(draw) for draw in draws], [2.5, 97.5])
    return {"value": float(statistic([v for s in subjects for v in values[s]])), "low": float(low), "high": float(high)}


def pooled_auprc(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    return average_precision_score(np.concatenate([m for m, _ in pairs]), np.concatenate([s for _, s in pairs]))


def sharpness(image: torch.Tensor) -> float:
    """RMS of the image minus its 3 x 3 mean."""
    return (image - F.avg_pool2d(image, 3, 1, 1)).square().mean().sqrt().item()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="ra")
    parser.add_argument("--ckpt")
    parser.add_argument("--dataset_dir")
    parser.add_argument("--datalist")
    parser.add_argument("--section", default="test")
    parser.add_argument("--every", type=int, default=6, help="every n-th level of each subject")
    parser.add_argument("--resamples", type=int, default=200)
    options = parser.parse_args()
    config = ConfigParser()
    config.read_config(bundle_root(options.bundle) / "configs" / "inference.json")
    weights = options.ckpt or bundle_root(options.bundle) / "models" / "model.pt"
    network = load_weights(config.get_parsed_content("network_def"), weights).eval()
    anomaly_map = config.get_parsed_content("anomaly_map")
    transform = train_transforms(**config["preprocessing_options"])

    items = resolve_dataset(options.dataset_dir, options.datalist, section=options.section)
    slices = list(axial_slices([i for i in items if i.get("pathology", "healthy") == "healthy"], transform))
    slices = [item for item in slices if item["level"] % options.every == options.every // 2]
    training = axial_slices(resolve_dataset(options.dataset_dir, options.datalist, section="training"), transform)
    template = {}
    for level in {item["level"] for item in slices}:
        template[level] = torch.stack([item["image"] for item in training if item["level"] == level]).mean(0)

    pose = RandomAffineBatch()
    healthy = torch.stack([item["image"] for item in slices])
    healthy = pose.apply(healthy, pose.draw(len(healthy), seeded_generator(0, 0)))
    measured: dict[str, dict[str, list]] = {}
    for number, (item, image) in enumerate(zip(slices, healthy)):

        def note(name, value, subject=item["subject"]):
            measured.setdefault(name, {}).setdefault(subject, []).append(value)

        reconstruction = network(image[None])
        x, x_ph = image[0].numpy(), reconstruction[0, 0].numpy()
        note("healthy MSE", float(((x - x_ph) ** 2).mean()))
        note("healthy SSIM", structural_similarity(x, x_ph, data_range=1.0))
        note("sharpness", sharpness(reconstruction) / sharpness(image[None]))
        for kind, paint in (("ellipses", add_ellipses), ("copy-paste", copy_paste)):
            anomalous, mask = paint(x, np.random.default_rng([number, len(kind)]))
            y = torch.from_numpy(anomalous).float()[None, None]
            y_ph = network(y)
            scores = {
                "Eq. 5": anomaly_map(y, y_ph),
                "residual": (y - y_ph).abs(),
                "template": (y - template[item["level"]]).abs(),
                "intensity": equalize(y),
            }
            for name, score in scores.items():
                note(f"{kind} AUPRC, {name}", (mask.ravel(), score.numpy().ravel().astype(np.float32)))
    report = {"slices": len(slices), "subjects": len({item["subject"] for item in slices})}
    for name, values in measured.items():
        statistic = pooled_auprc if "AUPRC" in name else np.mean
        report[name] = interval(values, statistic, options.resamples)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
