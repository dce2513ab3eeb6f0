"""Eq. 2 and 4 written out plainly, one pass for each term as in the paper's released code, to hold
the fast step against."""

import torch
from torch import nn
from torch.nn import functional as F


def literal_step(network, encoder_optimizer, decoder_optimizer, image, noise, weights):
    """Update encoder and decoder as `introspective_step` does, with nothing shared. Returns the two
    losses."""
    encoder, decoder = network.encode_with_embeddings, network.decode
    scale = 1 / image[0].numel()

    def sampled(parameters, eps):
        mean, log_variance, _ = parameters
        return mean + (log_variance / 2).exp() * eps

    def kl(parameters):
        mean, log_variance, _ = parameters
        return (-0.5 * (1 + log_variance - mean**2 - log_variance.exp())).sum(1)

    def sse(a, b):
        return ((a - b) ** 2).sum((1, 2, 3))

    def expelbo(target, detached, eps):
        posterior = encoder(detached)
        error = sse(target, decoder(sampled(posterior, eps)))
        return torch.exp(
            -2 * scale * (weights.beta_rec * error + weights.beta_neg * kl(posterior))
        ).mean()

    freeze(network.encoder, False)
    freeze(network.decoder, True)
    posterior = encoder(image)
    z = sampled(posterior, noise[0])
    r, f = decoder(z), decoder(noise[1])
    real = scale * (
        weights.beta_rec * sse(image, r).mean() + weights.beta_kl * kl(posterior).mean()
    )
    fake = (expelbo(r, r.detach(), noise[2]) + expelbo(f, f.detach(), noise[3])) / 4
    reversed_loss = 0
    for a, b in zip(posterior[2], encoder(r.detach())[2]):
        cosine = F.cosine_similarity(a.reshape(len(a), -1), b.reshape(len(b), -1))
        reversed_loss = reversed_loss + 0.5 * ((a - b) ** 2).mean() + (1 - cosine).mean()
    encoder_loss = real + fake + weights.reversed_embedding * reversed_loss
    encoder_optimizer.zero_grad()
    encoder_loss.backward()
    encoder_optimizer.step()

    freeze(network.encoder, True)
    freeze(network.decoder, False)
    r, f = decoder(z.detach()), decoder(noise[1])
    posterior_r, posterior_f = encoder(r), encoder(f)
    again_r = decoder(sampled(posterior_r, noise[2]).detach())
    again_f = decoder(sampled(posterior_f, noise[3]).detach())
    decoder_loss = scale * (
        weights.beta_rec * sse(image, r).mean()
        + weights.beta_kl * (kl(posterior_r).mean() + kl(posterior_f).mean()) / 2
        + weights.gamma_rec
        * weights.beta_rec
        * (sse(r.detach(), again_r).mean() + sse(f.detach(), again_f).mean())
        / 2
    )
    decoder_optimizer.zero_grad()
    decoder_loss.backward()
    decoder_optimizer.step()
    freeze(network.encoder, False)
    return encoder_loss.detach(), decoder_loss.detach()


def literal_ratios(network, image, noise, weights):
    """What `gradient_ratios` returns, each term on a pass of its own."""
    encoder, decoder, scale = network.encode_with_embeddings, network.decode, 1 / image[0].numel()

    def generated():
        mean, log_variance, _ = encoder(image)
        return decoder(mean + (log_variance / 2).exp() * noise[0]), decoder(noise[1])

    def sse(a, b):
        return ((a - b) ** 2).sum((1, 2, 3))

    def kl(seen):
        mean, log_variance, _ = encoder(seen)
        return (-0.5 * (1 + log_variance - mean**2 - log_variance.exp())).sum(1)

    def expelbo(target, eps):
        mean, log_variance, _ = encoder(target.detach())
        error = sse(target, decoder(mean + (log_variance / 2).exp() * eps))
        return torch.exp(
            -2 * scale * (weights.beta_rec * error + weights.beta_neg * kl(target.detach()))
        ).mean()

    def reversed_loss():
        total = 0
        for a, b in zip(encoder(image)[2], encoder(generated()[0].detach())[2]):
            cosine = F.cosine_similarity(a.reshape(len(a), -1), b.reshape(len(b), -1))
            total = total + 0.5 * ((a - b) ** 2).mean() + (1 - cosine).mean()
        return weights.reversed_embedding * total

    def norm(loss, half):
        network.zero_grad()
        loss.backward()
        squares = [p.grad.square().sum() for p in half.parameters() if p.grad is not None]
        network.zero_grad()
        return sum(squares).sqrt().item()

    error = scale * weights.beta_rec * sse(image, generated()[0]).mean()
    elbo = error + scale * weights.beta_kl * kl(image).mean()
    r, f = generated()
    of_generated = scale * weights.beta_kl * (kl(r).mean() + kl(f).mean()) / 2
    of_elbo = norm(elbo, network.encoder)
    r_again, f_again = generated()
    repelled = (expelbo(r_again, noise[2]) + expelbo(f_again.detach(), noise[3])) / 4
    return {
        "gradient_exp_elbo": norm(repelled, network.encoder) / of_elbo,
        "gradient_reversed": norm(reversed_loss(), network.encoder) / of_elbo,
        "gradient_kl_generated": norm(of_generated, network.decoder)
        / norm(scale * weights.beta_rec * sse(image, generated()[0]).mean(), network.decoder),
    }


def freeze(module: nn.Module, frozen: bool) -> None:
    for parameter in module.parameters():
        parameter.requires_grad_(not frozen)
