"""What is fast in the package, written out plainly: Eq. 2, 4 and 5, and the threshold search and
the counts of the paper's released code."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from skimage.exposure import equalize_adapthist
from torch.nn import functional as F


def sampled(posterior, eps):
    mean, log_variance, _ = posterior
    return mean + (log_variance / 2).exp() * eps


def kl(posterior):
    mean, log_variance, _ = posterior
    return (-0.5 * (1 + log_variance - mean**2 - log_variance.exp())).sum(1)


def sse(a, b):
    return ((a - b) ** 2).sum((1, 2, 3))


def expelbo(network, target, eps, weights):
    posterior = network.encoder(target.detach())
    error = sse(target, network.decoder(sampled(posterior, eps)))
    elbo = -(weights.beta_rec * error + weights.beta_neg * kl(posterior)) / target[0].numel()
    return torch.exp(2 * elbo).mean()


def reversed_loss(network, image, reconstruction):
    total = 0
    for a, b in zip(network.encoder(image)[2], network.encoder(reconstruction.detach())[2]):
        cosine = F.cosine_similarity(a.reshape(len(a), -1), b.reshape(len(b), -1))
        total = total + 0.5 * ((a - b) ** 2).mean() + (1 - cosine).mean()
    return total


def literal_step(network, encoder_optimizer, decoder_optimizer, image, noise, weights):
    """Update as `introspective_step` does, with nothing shared. Returns the two losses."""
    encoder, decoder = network.encoder, network.decoder
    scale = 1 / image[0].numel()

    encoder.requires_grad_(True)
    decoder.requires_grad_(False)
    posterior = encoder(image)
    z = sampled(posterior, noise[0])
    r, f = decoder(z), decoder(noise[1])
    real = weights.beta_rec * sse(image, r).mean() + weights.beta_kl * kl(posterior).mean()
    fake = expelbo(network, r, noise[2], weights) + expelbo(network, f, noise[3], weights)
    reverse = weights.reversed_embedding * reversed_loss(network, image, r)
    encoder_loss = scale * real + fake / 4 + reverse
    encoder_optimizer.zero_grad()
    encoder_loss.backward()
    encoder_optimizer.step()

    encoder.requires_grad_(False)
    decoder.requires_grad_(True)
    r, f = decoder(z.detach()), decoder(noise[1])
    posterior_r, posterior_f = encoder(r), encoder(f)
    again_r = decoder(sampled(posterior_r, noise[2]).detach())
    again_f = decoder(sampled(posterior_f, noise[3]).detach())
    again = (sse(r.detach(), again_r).mean() + sse(f.detach(), again_f).mean()) / 2
    decoder_loss = scale * (
        weights.beta_rec * sse(image, r).mean()
        + weights.beta_kl * (kl(posterior_r).mean() + kl(posterior_f).mean()) / 2
        + weights.gamma_rec * weights.beta_rec * again
    )
    decoder_optimizer.zero_grad()
    decoder_loss.backward()
    decoder_optimizer.step()
    encoder.requires_grad_(True)
    return encoder_loss.detach(), decoder_loss.detach()


def literal_ratios(network, image, noise, weights):
    """What `gradient_ratios` returns, each term on a pass of its own."""
    encoder, decoder, w = network.encoder, network.decoder, weights

    def generated():
        return decoder(sampled(encoder(image), noise[0])), decoder(noise[1])

    def norm(loss, half):
        network.zero_grad()
        loss.backward()
        squares = [p.grad.square().sum() for p in half.parameters() if p.grad is not None]
        network.zero_grad()
        return sum(squares).sqrt().item()

    scale = 1 / image[0].numel()
    error = scale * w.beta_rec * sse(image, generated()[0]).mean()
    elbo = norm(error + scale * w.beta_kl * kl(encoder(image)).mean(), encoder)
    r, f = generated()
    repelled = (expelbo(network, r, noise[2], w) + expelbo(network, f.detach(), noise[3], w)) / 4
    reverse = w.reversed_embedding * reversed_loss(network, image, generated()[0])
    error = norm(scale * w.beta_rec * sse(image, generated()[0]).mean(), decoder)
    kl_r, kl_f = (kl(encoder(image)).mean() for image in generated())
    return {
        "gradient_exp_elbo": norm(repelled, encoder) / elbo,
        "gradient_reversed": norm(reverse, encoder) / elbo,
        "gradient_kl_generated": norm(scale * w.beta_kl * (kl_r + kl_f) / 2, decoder) / error,
    }


# --- anomaly maps and their use ---


def literal_map(image, reconstruction, distance, equalized=True):
    """Eq. 5 for one image (1, 1, H, W) as it is written down."""

    def blurred(a, b):
        with torch.no_grad():
            raw = distance(*(torch.from_numpy(part)[None, None] for part in (a, b)))
        return gaussian_filter(raw[0, 0].numpy(), 2.0 * image.shape[-1] / 128)

    x, x_ph = (np.clip(part[0, 0].numpy(), 0, 1) for part in (image, reconstruction))
    if not equalized:
        return np.abs(x_ph - x) * blurred(x_ph, x)
    eq, eq_ph = equalize_adapthist(x), equalize_adapthist(x_ph)
    return np.abs(eq_ph - eq) * blurred(x_ph, x) * blurred(eq_ph, eq)


def released_threshold(maps, pixel_fpr=0.05):
    """Of 1,000 thresholds, that with the largest share of healthy maps (N, H, W) above it, on
    average, that is not larger."""
    grid = np.arange(0, 1, 0.001)
    shares = [np.mean([np.mean(one > threshold) for one in maps]) for threshold in grid]
    return grid[next(i for i, share in enumerate(shares) if share <= pixel_fpr)]


def released_box(anomaly_map, box, healthy, threshold):
    """TP, FP and F1 of one box, as the released code computes them."""
    kept = anomaly_map * (anomaly_map > threshold)
    tp = int(np.count_nonzero(kept * box) > 0.1 * np.count_nonzero(box))
    fp = int(np.sum(kept * healthy) / max(np.sum(kept * box), 1))
    precision = tp / max(tp + fp, 1)
    return tp, fp, 2 * precision * tp / (precision + tp + 1e-8)
