"""A whole image captioner in one file of NumPy: `python docs/walkthrough/micro.py`.

It learns to caption the drawn scenes in data/scenes. Each scene comes as 96 numbers, which a
convolutional network computed from its pixels, and with five captions. An LSTM that starts from the
numbers generates a caption word by word. Training takes 90 seconds.
"""

import gzip
import time
from pathlib import Path

import numpy as np

SCENES = Path(__file__).parents[2] / "data/scenes"
START, END = "#START#", "#END#"


# 1. Data


def load_scenes():
    """Return the 96 numbers of each scene, by name, and (name, words) pairs for each split."""
    file = np.load(SCENES / "features.npz")
    features = dict(zip(file["names"], file["codes"] / np.float32(4096), strict=True))
    pairs = {"train": [], "dev": []}
    split_of = {name: s for s in pairs for name in (SCENES / f"{s}.txt").read_text().split()}
    text = gzip.decompress((SCENES / "captions.txt.gz").read_bytes()).decode()
    for line in text.splitlines():
        name, caption = line.split("\t")
        name = name.split("#")[0]
        if name in split_of:
            pairs[split_of[name]].append((name, [START, *caption.split(), END]))
    return features, pairs


def make_batch(pairs, features, id_of):
    """Return x (N, 96), ids (N, T) and mask (N, T - 1).

    Short captions are padded with id 0. The mask is 1 for a word to predict and 0 for padding.
    """
    longest = max(len(words) for _, words in pairs)
    x = np.array([features[name] for name, _ in pairs])
    ids = np.zeros((len(pairs), longest), int)
    mask = np.zeros((len(pairs), longest - 1), "float32")
    for row, (_, words) in enumerate(pairs):
        ids[row, : len(words)] = [id_of[word] for word in words]
        mask[row, : len(words) - 1] = 1
    return x, ids, mask


# 2. The model


def initialise(F, H, D, V, rng):
    """Weights are uniform within Glorot and Bengio's (2010) bounds, biases zero."""

    def glorot(n, m):
        return rng.uniform(-1, 1, (n, m)) * np.sqrt(6 / (n + m))

    params = {"W_image": glorot(F, H), "b_image": np.zeros(H)}
    params |= {"E": rng.uniform(-1, 1, (V, D))}
    params |= {"W": glorot(D, 4 * H), "U": glorot(H, 4 * H), "b": np.zeros(4 * H)}
    params |= {"W_out": glorot(H, V), "b_out": np.zeros(V)}
    return {name: array.astype("float32") for name, array in params.items()}


def elu(z):
    return np.where(z > 0, z, np.exp(np.minimum(z, 0)) - 1)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def lstm_step(params, word, h, c):
    """Return the new h and c, and what the backward pass needs."""
    z = params["E"][word] @ params["W"] + h @ params["U"] + params["b"]
    z_i, z_j, z_f, z_o = np.split(z, 4, axis=1)
    i = sigmoid(z_i)
    j = np.tanh(z_j)
    f = sigmoid(z_f + 1)
    o = sigmoid(z_o)
    c_new = f * c + i * j
    h_new = o * np.tanh(c_new)
    return h_new, c_new, (word, h, c, i, j, f, o, c_new)


# 3. The loss and its gradients


def loss_and_gradients(params, x, ids, mask):
    """Return the mean cross-entropy of the words, in nats, and its gradient for each parameter."""
    # Forward pass
    z = x @ params["W_image"] + params["b_image"]
    h0 = elu(z)
    h, c = h0, h0
    rows = np.arange(len(ids))
    loss = 0.0
    steps = []
    for t in range(ids.shape[1] - 1):
        h, c, cache = lstm_step(params, ids[:, t], h, c)
        a = h @ params["W_out"] + params["b_out"]
        e = np.exp(a - a.max(axis=1, keepdims=True))
        p = e / e.sum(axis=1, keepdims=True)
        targets = ids[:, t + 1]
        weight = mask[:, t] / mask.sum()
        loss -= (np.log(p[rows, targets]) * weight).sum()
        da = p.copy()
        da[rows, targets] -= 1
        da *= weight[:, None]
        steps.append((cache, h, da))
    # Backward pass, from the last step to the first
    grads = {name: np.zeros_like(array) for name, array in params.items()}
    dh = np.zeros_like(h0)
    dc = np.zeros_like(h0)
    for (word, h_old, c_old, i, j, f, o, c), h, da in reversed(steps):
        grads["W_out"] += h.T @ da
        grads["b_out"] += da.sum(axis=0)
        dh = dh + da @ params["W_out"].T
        tanh_c = np.tanh(c)
        dc = dc + dh * o * (1 - tanh_c**2)
        dz_i = dc * j * i * (1 - i)
        dz_j = dc * i * (1 - j**2)
        dz_f = dc * c_old * f * (1 - f)
        dz_o = dh * tanh_c * o * (1 - o)
        dz = np.hstack([dz_i, dz_j, dz_f, dz_o])
        grads["W"] += params["E"][word].T @ dz
        grads["U"] += h_old.T @ dz
        grads["b"] += dz.sum(axis=0)
        np.add.at(grads["E"], word, dz @ params["W"].T)
        dh = dz @ params["U"].T
        dc = dc * f
    dz = (dh + dc) * np.where(z > 0, 1, h0 + 1)
    grads["W_image"] += x.T @ dz
    grads["b_image"] += dz.sum(axis=0)
    return loss, grads


# 4. Training and generation


def adam_step(params, grads, m, v, t, rate):
    """Update the parameters in place (Kingma and Ba 2015, algorithm 1)."""
    for name in params:
        m[name] += 0.1 * (grads[name] - m[name])
        v[name] += 0.001 * (grads[name] ** 2 - v[name])
        m_hat = m[name] / (1 - 0.9**t)
        v_hat = v[name] / (1 - 0.999**t)
        params[name] -= rate * m_hat / (np.sqrt(v_hat) + 1e-8)


def generate(params, x, words, longest=20):
    """Return a caption for each row of x: the likeliest word at every step, until #END#."""
    h = c = elu(x @ params["W_image"] + params["b_image"])
    word = np.full(len(x), words.index(START))
    chosen = []
    for _ in range(longest):
        h, c, _ = lstm_step(params, word, h, c)
        word = (h @ params["W_out"] + params["b_out"]).argmax(axis=1)
        chosen.append(word)
    captions = [[words[k] for k in row] + [END] for row in np.transpose(chosen)]
    return [" ".join(caption[: caption.index(END)]) for caption in captions]


def train(seconds=90, batch_size=128, rate=4e-3, seed=0):
    """Return trained parameters and the vocabulary, and print progress."""
    rng = np.random.default_rng(seed)
    features, pairs = load_scenes()
    words = sorted({word for _, caption in pairs["train"] for word in caption})
    id_of = {word: k for k, word in enumerate(words)}
    params = initialise(F=96, H=128, D=64, V=len(words), rng=rng)
    m = {name: np.zeros_like(array) for name, array in params.items()}
    v = {name: np.zeros_like(array) for name, array in params.items()}
    x_dev = np.array([features[pairs["dev"][0][0]]])
    start = time.perf_counter()
    t = 0
    while (done := (time.perf_counter() - start) / seconds) < 1:
        rows = rng.integers(len(pairs["train"]), size=batch_size)
        batch = make_batch([pairs["train"][k] for k in rows], features, id_of)
        loss, grads = loss_and_gradients(params, *batch)
        t += 1
        adam_step(params, grads, m, v, t, rate * (1 - done))
        if t % 200 == 0:
            print(f"step {t:4}  loss {loss:.2f}  {generate(params, x_dev, words)[0]}", flush=True)
    return params, words


if __name__ == "__main__":
    train()
