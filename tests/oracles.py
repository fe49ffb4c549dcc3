"""The paper's equations as plain loops over NumPy float64, one user, item, head or step at a time.

Written from the paper, not from the package, and slow on purpose: the tests hold the package against these.
``weights`` is ``{name: array}``, a module's state. Histories come without any padding; where the paper pads
(Eq. 7, 10) the zeros are written out.
"""

# B batch, L one history's length, M max_length, D hidden, I items, N experts, Z codes, A heads, T steps

import math

import numpy as np


def weights_of(module):
    """A module's parameters and buffers as float64 arrays."""
    return {name: tensor.detach().double().numpy() for name, tensor in module.state_dict().items()}


def below(weights, prefix):
    """The weights of the submodule ``prefix``, under their own names."""
    return {name[len(prefix) + 1 :]: w for name, w in weights.items() if name.startswith(prefix + ".")}


def softmax(logits):
    exponentials = [math.exp(logit - max(logits)) for logit in logits]
    return np.array([e / sum(exponentials) for e in exponentials])


def linear(weights, name, x):
    return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]


def gelu(x):
    return np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x])


def silu(x):
    return np.array([v / (1 + math.exp(-v)) for v in x])


def layer_norm(weights, name, x):
    centred = x - sum(x) / len(x)
    return weights[f"{name}.weight"] * centred / math.sqrt(sum(centred**2) / len(x) + 1e-5) + weights[f"{name}.bias"]


def unit_variance(table):
    """Each column (I, D) moved to mean zero, then the whole divided by one number so that its variance is one."""
    centred = table - sum(table) / len(table)
    return centred / math.sqrt(sum(sum(row**2) for row in centred) / table.size)


def cosine(a, b):
    return sum(a * b) / math.sqrt(sum(a * a) * sum(b * b))


# Section III-C


def experts(weights, modality, id_embeddings):
    """Eq. 3-6: (I, D) mixed embeddings and (I, N) gates."""
    mixed, gates = [], []
    for e_modality, e_id in zip(modality, id_embeddings, strict=True):
        gate = softmax(linear(weights, "gate", e_id))  # Eq. 3, 4
        gates.append(gate)
        e = np.zeros_like(e_modality)
        for g, w, b in zip(gate, weights["expert_weight"], weights["expert_bias"], strict=True):
            e += g * (w @ e_modality + b)  # Eq. 5, 6
        mixed.append(e)
    return np.array(mixed), np.array(gates)


# Section III-D


def padded(sequence, max_length):
    """(L, D) -> (M, D), zeros on the left."""
    whole = np.zeros((max_length, sequence.shape[1]))
    for k in range(1, len(sequence) + 1):
        whole[-k] = sequence[-k]
    return whole


def selector_logits(weights, sequence):
    """Eq. 7: o, (Z,), for a history (L, D)."""
    whole = padded(sequence, weights["codes"].shape[1])
    flat = np.concatenate(list(whole))  # position by position
    return linear(weights, "selector_out", gelu(linear(weights, "selector_in", flat)))


def gumbel_softmax(logits, noise, temperature):
    """Eq. 8: a, (Z,)."""
    return softmax([(o + n) / temperature for o, n in zip(logits, noise, strict=True)])


def quantise(weights, sequence, lambda_q, temperature, noise=None):
    """Eq. 7-9: s-tilde (L, D) and z*; noise None at inference."""
    logits = selector_logits(weights, sequence)
    preferences = logits if noise is None else gumbel_softmax(logits, noise, temperature)
    best = 0
    for z, preference in enumerate(preferences):
        if preference > preferences[best]:
            best = z
    code = weights["codes"][best]  # (M, D)
    return np.array([lambda_q * code[k] + sequence[k] for k in range(-len(sequence), 0)]), best


def nearest_code(codes, sequence):
    """The code (M, D) of (Z, M, D) with the least squared distance to a history (L, D) behind its padding."""
    whole = padded(sequence, codes.shape[1])
    return min(range(len(codes)), key=lambda z: np.sum((codes[z] - whole) ** 2))


def straight_through_gradient(upstream, logits, noise, temperature, codes):
    """d loss / d o of Eq. 8 when the chosen code stands for the soft mixture: sum over z of a_z c_z.

    ``upstream`` (L, D) is d loss / d c_{z*}, so d loss / d a_z = <upstream, c_z>.
    """
    a, length = gumbel_softmax(logits, noise, temperature), len(upstream)
    gradient = np.zeros(len(logits))
    for z in range(len(logits)):
        for y in range(len(logits)):
            d_loss_d_a = np.sum(upstream * codes[y][-length:])
            d_a_d_o = a[y] * ((1.0 if y == z else 0.0) - a[z]) / temperature
            gradient[z] += d_loss_d_a * d_a_d_o
    return gradient


def em(codes, sequences, indices):
    """Eq. 10: codes (Z, M, D) after one update; a code with an empty S_z stays."""
    updated = codes.copy()
    for z in range(len(codes)):
        chose = [padded(s, codes.shape[1]) for s, index in zip(sequences, indices, strict=True) if index == z]
        if chose:
            updated[z] = sum(chose) / len(chose)
    return updated


# Section III-E


def truncated_linear(num_train_timesteps):
    """beta_1 ... beta_T of design section 4's table."""
    scale = 1000 / num_train_timesteps
    start, end = scale * 0.0001 + 0.01, scale * 0.02 + 0.01
    if end > 1:
        end = scale * 0.001 + 0.01
    return [start + (end - start) * t / max(num_train_timesteps - 1, 1) for t in range(num_train_timesteps)]


def abar(betas, t):
    product = 1.0
    for beta in betas[:t]:
        product *= 1 - beta
    return product


def forward_marginal(betas, t):
    """Eq. 11 walked t times: the factor of x_0 in the mean of x_t, and the standard deviation of x_t."""
    factor, variance = 1.0, 0.0
    for beta in betas[:t]:
        factor, variance = math.sqrt(1 - beta) * factor, (1 - beta) * variance + beta
    return factor, math.sqrt(variance)


def reverse_step(betas, t, pred_original, x_t, noise):
    """Eq. 17, 18: x_{t-1}."""
    beta = betas[t - 1]
    alpha, abar_t, abar_before = 1 - beta, abar(betas, t), abar(betas, t - 1)
    mean = (
        math.sqrt(abar_before) * beta / (1 - abar_t) * pred_original
        + math.sqrt(alpha) * (1 - abar_before) / (1 - abar_t) * x_t
    )
    sigma = math.sqrt((1 - abar_before) / (1 - abar_t) * beta)
    return mean + sigma * noise


def timestep_embedding(t, hidden_size):
    half = hidden_size // 2
    angles = [t / 10_000 ** (k / half) for k in range(half)]
    return np.array([math.cos(a) for a in angles] + [math.sin(a) for a in angles])


def transformer_block(weights, hidden, num_heads):
    """(L, D) -> (L, D): every position attends to every position of a history that has no padding."""
    length, size = hidden.shape
    width = size // num_heads
    normed = [layer_norm(weights, "attention_norm", h) for h in hidden]
    queries = [linear(weights, "query", h) for h in normed]
    key_values = [linear(weights, "key_value", h) for h in normed]
    out = []
    for k in range(length):
        attended = np.zeros(size)
        for head in range(num_heads):
            part = slice(head * width, (head + 1) * width)
            logits = [queries[k][part] @ kv[:size][part] / math.sqrt(width) for kv in key_values]
            for a, kv in zip(softmax(logits), key_values, strict=True):
                attended[part] += a * kv[size:][part]
        h = hidden[k] + linear(weights, "attention_out", attended)
        inner = layer_norm(weights, "feed_forward.0", h)
        out.append(h + linear(weights, "feed_forward.3", gelu(linear(weights, "feed_forward.1", inner))))
    return np.array(out)


def denoise(weights, x_t, t, sequence, num_layers, num_heads, noise_scale):
    """Eq. 13: x-hat_0 (D,) for one history s-tilde (L, D), read at its last position."""
    time = timestep_embedding(t, len(x_t))
    time = linear(weights, "time_mlp.2", silu(linear(weights, "time_mlp.0", time)))
    hidden = []
    for k in range(-len(sequence), 0):
        h = sequence[k] + weights["positions"][k] + noise_scale * (x_t + time)
        hidden.append(layer_norm(weights, "input_norm", h))
    hidden = np.array(hidden)
    for layer in range(num_layers):
        hidden = transformer_block(below(weights, f"blocks.{layer}"), hidden, num_heads)
    return layer_norm(weights, "output_norm", hidden[-1])


def denoise_token(weights, x_t, t, sequence, num_layers, num_heads):
    """Eq. 13 with x_t as a token behind s-tilde (L, D): it sees the sequence and itself, nobody sees it."""
    time = timestep_embedding(t, len(x_t))
    time = linear(weights, "time_mlp.2", silu(linear(weights, "time_mlp.0", time)))
    places = range(-len(sequence), 0)
    hidden = np.array([layer_norm(weights, "input_norm", sequence[k] + weights["positions"][k]) for k in places])
    token = hidden[-1] + linear(weights, "x_in", x_t) + time
    for layer in range(num_layers):
        block = below(weights, f"blocks.{layer}")
        token = transformer_block(block, np.array([*hidden, token]), num_heads)[-1]
        hidden = transformer_block(block, hidden, num_heads)
    return layer_norm(weights, "output_norm", token)


def reconstruction(originals, predictions):
    """Eq. 14, the mean over the batch and over dimensions."""
    squares = [(x - p) ** 2 for a, b in zip(originals, predictions, strict=True) for x, p in zip(a, b, strict=True)]
    return sum(squares) / len(squares)


def contrastive(predictions, histories, users):
    """Eq. 15 over pairs of different histories of different users; nobody without such a partner counts."""
    values = []
    for i in range(len(predictions)):
        others = [
            math.exp(cosine(predictions[i], predictions[j]))
            for j in range(len(predictions))
            if users[i] != users[j] and list(histories[i]) != list(histories[j])
        ]
        if others:
            values.append(math.log(sum(others)))
    return sum(values) / len(values) if values else 0.0


def cross_entropy(predictions, items, targets, histories, repeat_bias=0.0):
    """Eq. 20, 21, the mean over the batch; ``items`` is (I, D), item i in row i - 1."""
    values = []
    for p, target, history in zip(predictions, targets, histories, strict=True):
        logits = [p @ e + repeat_bias * (i in history) for i, e in enumerate(items, start=1)]
        probabilities = softmax(logits)  # Eq. 20
        values.append(-math.log(probabilities[target - 1]))
    return sum(values) / len(values)


# The whole model


class IMECD:
    """Eq. 1-22 for the weights of a model, one example at a time.

    Args:
        config: its settings.
        weights: of the whole model.
        features: {"text": (I, d_txt), "image": (I, d_img)}.
    """

    def __init__(self, config, weights, features):
        self.config, self.weights = config, weights
        self.betas = truncated_linear(config.num_train_timesteps)
        self.scale = 1 / math.sqrt(config.hidden_size) if config.unit_variance else 1.0
        self.items = {"id": self.normalised(weights["item_embedding.weight"][1:])}  # modality: (I, D)
        self.gates = {}  # modality: (I, N)
        for name, table in features.items():
            if config.unit_variance:
                table = (table - table.mean(axis=0)) / table.std(axis=0, ddof=1)
            projected = np.array([linear(weights, f"projections.{name}", row) for row in table])  # Eq. 1, 2
            if config.use_experts:
                module = below(weights, f"experts.{name}")
                projected, self.gates[name] = experts(module, projected, self.items["id"])
            self.items[name] = self.normalised(projected)

    def normalised(self, table):
        return unit_variance(table) if self.config.unit_variance else table

    def repeat_bias(self, name):
        """What the score of an item of the history gains."""
        return 10 * self.weights["repeat_bias"][list(self.items).index(name)] if self.config.repeat_bias else 0.0

    def gate_loss(self, name):
        """Minus the log of the gate for the expert whose centre is nearest to the item's ID, the mean over items."""
        values = []
        for gate, e in zip(self.gates[name], self.items["id"], strict=True):
            distances = [sum((e - centre) ** 2) for centre in self.weights["groups.centres"]]
            values.append(-math.log(gate[distances.index(min(distances))]))
        return sum(values) / len(values)

    def condition(self, name, history, noise=None):
        """s-tilde (L, D) of Eq. 9 and z*; z* is None without codebooks."""
        sequence = np.array([self.items[name][item - 1] for item in history])
        if not self.config.use_codebooks:
            return sequence, None
        codebook = below(self.weights, f"codebooks.{name}")
        return quantise(codebook, sequence, self.config.lambda_q, self.config.temperature, noise)

    def denoise(self, name, x_t, t, sequence):
        config, weights = self.config, below(self.weights, f"denoisers.{name}")
        layers = config.num_layers[name]
        if config.denoiser == "token":
            return denoise_token(weights, x_t, t, sequence, layers, config.num_attention_heads)
        return denoise(weights, x_t, t, sequence, layers, config.num_attention_heads, config.noise_scale)

    def loss(self, histories, targets, users, draws):
        """Eq. 22: the total, its terms, and the code each history chose.

        ``draws[name]`` holds timesteps (B,), noise (B, D) and Gumbel noise (B, Z), and with ``own_noise`` x_T (B, D)
        and whether each x_t is noised from the model's own prediction (B,).
        """
        total, terms, chosen, config = 0.0, {}, {}, self.config
        for name, items in self.items.items():
            timesteps, noise, gumbel, *of_own = draws[name]
            originals, predictions, from_noise, chosen[name], match = [], [], [], [], []
            for i, history in enumerate(histories):
                x_0 = original = items[targets[i] - 1]
                sequence, index = self.condition(name, history, gumbel[i])
                if config.own_noise:
                    x_T, own = of_own
                    from_noise.append(self.denoise(name, x_T[i], config.num_train_timesteps, sequence))
                    x_0 = from_noise[i] if own[i] else x_0
                factor, deviation = forward_marginal(self.betas, timesteps[i])
                x_t = factor * x_0 + deviation * noise[i]  # Eq. 12
                originals.append(original)
                predictions.append(self.denoise(name, x_t, timesteps[i], sequence))
                chosen[name].append(index)
                if config.use_codebooks:
                    codebook = below(self.weights, f"codebooks.{name}")
                    bought = np.array([items[item - 1] for item in history])
                    likely = softmax(selector_logits(codebook, bought))
                    match.append(-math.log(likely[nearest_code(codebook["codes"], bought)]))
            passes = [predictions, from_noise] if from_noise else [predictions]
            terms[f"{name}/cross_entropy"] = sum(
                cross_entropy([self.scale * p for p in predicted], items, targets, histories, self.repeat_bias(name))
                / len(passes)
                for predicted in passes
            )
            if name in self.gates and config.lambda_gate:
                terms[f"{name}/gate"] = self.gate_loss(name)
                total += config.lambda_gate * terms[f"{name}/gate"]
            if config.lambda_match and match:
                terms[f"{name}/match"] = sum(match) / len(match)
                total += config.lambda_match * terms[f"{name}/match"]
            terms[f"{name}/reconstruction"] = reconstruction(originals, predictions)
            total += terms[f"{name}/cross_entropy"] + terms[f"{name}/reconstruction"]
            if self.config.use_contrastive:
                terms[f"{name}/contrastive"] = contrastive(predictions, histories, users)
                total += self.config.lambda_c * terms[f"{name}/contrastive"]
        return total, terms, chosen

    def scores(self, history, noise):
        """Eq. 16-19: (I,) for one user; ``noise[name]`` (T + 1, D) holds x_T, then the epsilon of each step."""
        scores = np.zeros(len(self.items["id"]))
        for name, items in self.items.items():
            sequence, _ = self.condition(name, history)
            x = noise[name][0]
            for k, t in enumerate(range(self.config.num_train_timesteps, 0, -1), start=1):
                x = reverse_step(self.betas, t, self.denoise(name, x, t, sequence), x, noise[name][k])
            for i, e in enumerate(items):
                score = self.scale * (x @ e) + self.repeat_bias(name) * (i + 1 in history)
                scores[i] += score if name == "id" else self.config.feature_weight * score  # Eq. 19
        return scores
