"""The small model of model_test.cpp in PyTorch, fp64: reads weights, writes loss and gradients.

Usage: pytorch_model.py gpt|llama HEADS KV_HEADS SEQ_LEN INPUT OUTPUT
A line of either file is a tensor: its name, its sizes ("4x3"), its elements.
"""
import math
import sys

import torch
import torch.nn.functional as F


def as_float(number):
    """Scalars of operator calls are floats: the double nearest to one is none of them."""
    return torch.tensor(number, dtype=torch.float32).item()


EPSILON = as_float(1e-5)


def read_tensors(path):
    tensors = {}
    with open(path) as file:
        for line in file:
            name, sizes, *elements = line.split()
            tensor = torch.tensor([float(x) for x in elements], dtype=torch.float64)
            tensors[name] = tensor.reshape([int(n) for n in sizes.split("x")])
    return tensors


def norm(x, weights, name, kind):
    if kind == "gpt":
        width = (x.shape[-1],)
        return F.layer_norm(x, width, weights[name + ".weight"], weights[name + ".bias"], EPSILON)
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + EPSILON) * weights[name + ".weight"]


def linear(x, weights, name):
    return F.linear(x, weights[name + ".weight"], weights.get(name + ".bias"))


def rotate(x):
    """x is (batch, heads, tokens, d); pairs are (i, i + d/2)."""
    half = x.shape[-1] // 2
    places = torch.arange(x.shape[-2], dtype=torch.float64)
    rates = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = places[:, None] * rates[None, :]
    cosine, sine = angles.cos(), angles.sin()
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cosine - b * sine, b * cosine + a * sine], -1)


def attention(qkv, heads, kv_heads, kind):
    batch, tokens, width = qkv.shape
    d = width // (heads + 2 * kv_heads)
    split = qkv.reshape(batch, tokens, heads + 2 * kv_heads, d).transpose(1, 2)
    q, k, v = split[:, :heads], split[:, heads : heads + kv_heads], split[:, heads + kv_heads :]
    if kind == "llama":
        q, k = rotate(q), rotate(k)
    k = k.repeat_interleave(heads // kv_heads, 1)
    v = v.repeat_interleave(heads // kv_heads, 1)
    scores = q @ k.transpose(-1, -2) * as_float(1 / math.sqrt(d))
    mask = torch.full((tokens, tokens), float("-inf"), dtype=torch.float64).triu(1)
    out = torch.softmax(scores + mask, -1) @ v
    return out.transpose(1, 2).reshape(batch, tokens, heads * d)


def loss_of(weights, tokens, targets, kind, heads, kv_heads):
    x = weights["embedding"][tokens]
    if kind == "gpt":
        x = x + weights["positions"][: tokens.shape[1]]
    layer = 0
    while f"layer{layer}.qkv.weight" in weights:
        name = f"layer{layer}."
        qkv = linear(norm(x, weights, name + "norm1", kind), weights, name + "qkv")
        x = x + linear(attention(qkv, heads, kv_heads, kind), weights, name + "projection")
        up = linear(norm(x, weights, name + "norm2", kind), weights, name + "up")
        if kind == "gpt":
            activated = F.gelu(up, approximate="tanh")
        else:
            gate, value = up.chunk(2, -1)
            activated = F.silu(gate) * value
        x = x + linear(activated, weights, name + "down")
        layer += 1
    x = norm(x, weights, "final_norm", kind)
    logits = x @ weights.get("head", weights["embedding"]).T
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))


def main():
    kind, heads, kv_heads, seq_len, source, target = sys.argv[1:]
    weights = read_tensors(source)
    tokens = weights.pop("tokens").long().reshape(-1, int(seq_len))
    targets = weights.pop("targets").long()
    for weight in weights.values():
        weight.requires_grad_()
    loss = loss_of(weights, tokens, targets, kind, int(heads), int(kv_heads))
    loss.backward()
    with open(target, "w") as file:
        file.write(f"loss 1 {loss.item()!r}\n")
        for name, weight in weights.items():
            sizes = "x".join(str(n) for n in weight.shape)
            elements = " ".join(repr(g) for g in weight.grad.reshape(-1).tolist())
            file.write(f"{name} {sizes} {elements}\n")


if __name__ == "__main__":
    main()
