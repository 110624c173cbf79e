"""Training steps of the three sequence-to-sequence models, beside the same in PyTorch."""

import numpy as np
import pytest

from common.base_layer import LSTM_GATES, TORCH_LSTM_GATES, reorder_gates
from common.optimizer import SGD
from common.util import clip_grads
from models import AttentionSeq2seq, PeekySeq2seq, Seq2seq
from tests.builders import close, generator, ids

torch = pytest.importorskip("torch", reason="parity needs PyTorch; install 'time-layers[bench]'")
torch.set_num_threads(1)  # for arrays this small, threads only wait for each other

TOLERANCE = 1e-5
V, D, H, N, S, T = 30, 8, 12, 5, 9, 6
LEARNING_RATE, MAX_GRAD = 1.0, 0.5
CLASSES = {"Seq2seq": Seq2seq, "PeekySeq2seq": PeekySeq2seq, "AttentionSeq2seq": AttentionSeq2seq}


class InTorch(torch.nn.Module):
    """The same maths by PyTorch's modules and functions, with the weights of one of our models."""

    def __init__(self, model, kind, score, pad_id):
        super().__init__()
        self.kind, self.score, self.pad_id = kind, score, pad_id
        named = {key: torch.tensor(param) for key, param in model.named_params().items()}
        peeks = H if kind == "PeekySeq2seq" else 0
        self.read, self.write = torch.nn.Embedding(V, D), torch.nn.Embedding(V, D)
        self.encoder = torch.nn.LSTM(D, H, batch_first=True)
        self.decoder = torch.nn.LSTM(D + peeks, H, batch_first=True)
        self.affine = torch.nn.Linear(H if kind == "Seq2seq" else 2 * H, V)
        with torch.no_grad():
            self.read.weight.copy_(named["encoder.embedding.W"])
            self.write.weight.copy_(named["decoder.embedding.W"])
            self.affine.weight.copy_(named["decoder.affine.W"].T)
            self.affine.bias.copy_(named["decoder.affine.b"])
            for coder in ("encoder", "decoder"):
                lstm = getattr(self, coder)
                weights = (lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0)
                for weight, key in zip(weights, ("Wx", "Wh", "b"), strict=True):
                    ours = model.named_params()[f"{coder}.lstm.{key}"]
                    theirs = reorder_gates(ours, LSTM_GATES, TORCH_LSTM_GATES).T
                    weight.copy_(torch.tensor(np.ascontiguousarray(theirs)))
                lstm.bias_hh_l0.zero_()
        for lstm in (self.encoder, self.decoder):
            lstm.bias_hh_l0.requires_grad_(False)  # we have one bias, PyTorch adds up two
        self.of_score = torch.nn.ParameterList(
            named[key].clone() for key in named if "attention." in key
        )

    def forward(self, xs, ts):
        counts = xs != self.pad_id
        lengths = counts.sum(dim=1)  # padding stands behind
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            self.read(xs), lengths, batch_first=True, enforce_sorted=False
        )
        packed, (h, _) = self.encoder(packed)
        hs_enc, _ = torch.nn.utils.rnn.pad_packed_sequence(
            packed, batch_first=True, total_length=xs.shape[1]
        )
        peeked = h[0][:, None].expand(-1, ts.shape[1] - 1, -1)
        inputs = self.write(ts[:, :-1])
        if self.kind == "PeekySeq2seq":
            inputs = torch.cat([peeked, inputs], dim=2)
        hs, _ = self.decoder(inputs, (h, torch.zeros_like(h)))
        if self.kind == "PeekySeq2seq":
            hs = torch.cat([peeked, hs], dim=2)
        if self.kind == "AttentionSeq2seq":
            hs = torch.cat([self.attention(hs_enc, hs, counts), hs], dim=2)
        return self.affine(hs)

    def attention(self, hs_enc, hs, counts):
        if self.score == "additive":
            W, U, v = self.of_score
            scores = torch.tanh((hs @ W)[:, :, None] + (hs_enc @ U)[:, None]) @ v
            scores = scores.masked_fill(~counts[:, None], -torch.inf)
            return torch.softmax(scores, dim=2) @ hs_enc
        queries = hs @ self.of_score[0] if self.score == "general" else hs
        return torch.nn.functional.scaled_dot_product_attention(
            queries, hs_enc, hs_enc, attn_mask=counts[:, None], scale=1.0
        )

    def named(self):
        """The weights under our names and in our layout."""
        weights = {}
        for coder, embedding in (("encoder", self.read), ("decoder", self.write)):
            lstm = getattr(self, coder)
            weights[f"{coder}.embedding.W"] = embedding.weight
            weights[f"{coder}.lstm.Wx"] = lstm.weight_ih_l0
            weights[f"{coder}.lstm.Wh"] = lstm.weight_hh_l0
            weights[f"{coder}.lstm.b"] = lstm.bias_ih_l0
        weights = {key: param.detach().numpy() for key, param in weights.items()}
        for key, weight in weights.items():
            if "lstm" in key:
                weights[key] = reorder_gates(weight.T, TORCH_LSTM_GATES, LSTM_GATES)
        names = {"general": "W", "additive": "WUv"}.get(self.score, "")
        for key, param in zip(names, self.of_score, strict=True):
            weights[f"decoder.{self.score}attention.{key}"] = param.detach().numpy()
        weights["decoder.affine.W"] = self.affine.weight.detach().numpy().T
        weights["decoder.affine.b"] = self.affine.bias.detach().numpy()
        return weights


@pytest.mark.parametrize("pad_id", [None, 0])
@pytest.mark.parametrize(
    ("kind", "score"),
    [
        ("Seq2seq", ""),
        ("PeekySeq2seq", ""),
        *(("AttentionSeq2seq", score) for score in ("dot", "general", "additive")),
    ],
)
def test_three_updates_end_at_the_weights_of_pytorch(kind, score, pad_id):
    options = {"score": score} if score else {}
    model = CLASSES[kind](V, D, H, rng=1, pad_id=pad_id, **options)
    for param in model.params:  # the embeddings begin near zero, where errors could hide
        param[...] = 0.7 * generator(param.size).standard_normal(param.shape)
    twin = InTorch(model, kind, score, -1 if pad_id is None else pad_id)
    trained = [p for p in twin.parameters() if p.requires_grad]
    optimizer, torch_optimizer = SGD(LEARNING_RATE), torch.optim.SGD(trained, lr=LEARNING_RATE)
    start = {key: param.copy() for key, param in model.named_params().items()}
    rng = generator(2)
    for _ in range(3):
        xs, ts = 1 + ids(rng, V - 1, N, S), 1 + ids(rng, V - 1, N, T + 1)
        if pad_id is not None:
            for n in range(N):
                xs[n, S - n :] = ts[n, T + 1 - n :] = pad_id

        loss = model.forward(xs, ts)
        model.backward()
        norm = clip_grads(model.grads, MAX_GRAD)
        optimizer.update(model.params, model.grads)

        torch_optimizer.zero_grad()
        torch_loss = torch.nn.functional.cross_entropy(
            twin(torch.tensor(xs), torch.tensor(ts)).reshape(-1, V),
            torch.tensor(ts[:, 1:]).reshape(-1),
            ignore_index=-100 if pad_id is None else pad_id,
        )
        torch_loss.backward()
        torch_norm = torch.nn.utils.clip_grad_norm_(trained, MAX_GRAD)
        torch_optimizer.step()

        assert float(loss) == pytest.approx(float(torch_loss.detach()), rel=TOLERANCE)
        assert float(norm) == pytest.approx(float(torch_norm), rel=TOLERANCE)
        assert float(norm) > MAX_GRAD  # so that clipping has been compared, too
        theirs = twin.named()
        assert list(theirs) == list(model.named_params())
        for key, param in model.named_params().items():
            close(param, theirs[key], TOLERANCE)
    for key, param in model.named_params().items():
        assert abs(param - start[key]).max() > 1e-3
