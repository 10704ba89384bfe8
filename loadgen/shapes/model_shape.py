"""What a model costs, from its config.json alone: parameters, bytes and operations a token.

In: a config.json (its path, its folder, or its fields). Out: a `ModelShape`, pure numbers. The counts follow the
modules of transformers: every weight, norm, bias, router and attention sink; not the extra layers that predict further
tokens (DeepSeek's MTP), and not the vision or audio tower of a model that has its ``text_config`` nested.

**Active** parameters are those that one token passes through: k of the E routed experts, all else. The input embedding
is a look-up of one row, so decoding neither reads nor multiplies it; published counts differ in whether they hold it,
hence two properties. Where it is tied to the output matrix, it is read as that.

**Distinct experts.** B tokens that each choose k of E experts, uniformly and independently, hit E (1 - (1 - k/E)^B) of
them on average. Real routers are skewed and the tokens of one domain agree, so they hit fewer.
"""

from __future__ import annotations

import math

import msgspec

from loadgen.shapes.precision import PLAIN_BYTES, Precision


class Attention(msgspec.Struct, frozen=True, kw_only=True):
    """One layer's attention. ``linear``: weights of its projections; ``other``: biases, norms, sinks.

    ``kv_values``: numbers that it caches per token. ``prefill_flops`` and ``decode_flops``: operations per token and
    token attended to; they differ for MLA, which expands its latent cache while prefilling and decodes in it.
    ``kv_heads`` can be told apart in the cache, and so split over GPUs; MLA's latent vector is one.
    """

    linear: int
    other: int
    kv_values: int
    prefill_flops: int
    decode_flops: int
    heads: int
    kv_heads: int


class Mlp(msgspec.Struct, frozen=True, kw_only=True):
    """Layers with a dense MLP: their number, and the weights and biases of each."""

    layers: int
    linear: int
    other: int


class Experts(msgspec.Struct, frozen=True, kw_only=True):
    """Layers with routed experts: ``number`` of them, ``per_token`` chosen, weights and biases of one.

    ``shared``: weights of the experts that every token passes; ``router``: those that choose, and the shared gate.
    """

    layers: int
    number: int
    per_token: int
    linear: int
    other: int
    shared: int
    router: int

    def hit(self, tokens: float) -> float:
        """The expected number of distinct experts that a batch of tokens chooses in a layer, k..E."""
        return self.number * (1 - math.pow(1 - self.per_token / self.number, tokens))


class ModelShape(msgspec.Struct, frozen=True, kw_only=True):
    """A model by its numbers. ``mlp`` and ``experts`` hold the layers of either kind; ``experts`` is None for none.

    ``windowed_layers`` attend to the last ``window`` tokens only. ``stored`` is the precision that its config states.
    """

    name: str
    architecture: str
    hidden: int
    layers: int
    vocabulary: int
    tied: bool
    attention: Attention
    mlp: Mlp
    experts: Experts | None
    window: int
    windowed_layers: int
    stored: Precision

    @property
    def embedding(self) -> int:
        """Parameters of the input embedding."""
        return self.vocabulary * self.hidden

    @property
    def total(self) -> int:
        """All parameters."""
        experts = self.experts
        routed = experts.layers * experts.number * (experts.linear + experts.other) if experts else 0
        return self._linear + self._plain + self._lookup + routed

    @property
    def active(self) -> int:
        """Parameters that one token passes through, the input embedding counted whole."""
        return self.active_without_embedding + self._lookup

    @property
    def active_without_embedding(self) -> int:
        """Parameters that are multiplied for one token: without the input embedding, which is a look-up."""
        experts = self.experts
        routed = experts.layers * experts.per_token * (experts.linear + experts.other) if experts else 0
        return self._linear + self._plain + routed

    def weight_bytes(self, precision: Precision) -> float:
        """Bytes of all weights."""
        number = self.experts.number if self.experts else 0
        return self._bytes(number, precision) + self._lookup * PLAIN_BYTES

    def read_bytes(self, tokens: float, precision: Precision) -> float:
        """Bytes of weights that a step over ``tokens`` tokens reads: each once, routed experts where one is hit."""
        return self._bytes(self.experts.hit(tokens) if self.experts else 0, precision)

    def token_flops(self) -> int:
        """Operations per token without attention over the context: a multiplication and an addition a parameter."""
        return 2 * self.active_without_embedding

    def kv_bytes_per_token(self, value_bytes: int = PLAIN_BYTES) -> int:
        """Bytes of KV cache per token, every layer counted as if it kept all of its context."""
        return self.layers * self.attention.kv_values * value_bytes

    def layer_contexts(self, first: int, last: int) -> float:
        """Tokens attended to, summed over layers: the mean over contexts of ``first`` to ``last`` tokens."""
        mean, windowed = (first + last) / 2, 0.0
        if self.windowed_layers:
            inside = range(first, min(last, self.window) + 1)  # contexts that the window does not cut
            whole = (inside.start + inside.stop - 1) * len(inside) / 2
            windowed = (whole + self.window * (last - first + 1 - len(inside))) / (last - first + 1)
        return (self.layers - self.windowed_layers) * mean + self.windowed_layers * windowed

    @property
    def _linear(self) -> int:
        """Weights of linear layers outside the routed experts and the output matrix."""
        shared = self.experts.layers * self.experts.shared if self.experts else 0
        return self.layers * self.attention.linear + self.mlp.layers * self.mlp.linear + shared

    @property
    def _plain(self) -> int:
        """Parameters that no precision quantizes: output matrix, norms, biases, routers; no input embedding."""
        norms = (2 * self.layers + 1) * self.hidden
        routers = self.experts.layers * self.experts.router if self.experts else 0
        small = self.layers * self.attention.other + self.mlp.layers * self.mlp.other
        return self.embedding + norms + routers + small

    @property
    def _lookup(self) -> int:
        """Parameters of an input embedding of its own; 0 where it is the output matrix."""
        return 0 if self.tied else self.embedding

    def _bytes(self, experts_hit: float, precision: Precision) -> float:
        """Bytes of everything but the input embedding, with this many routed experts a layer."""
        outside = PLAIN_BYTES if precision.experts_only else precision.weight_bytes
        routed = 0.0
        if self.experts:
            one = self.experts.linear * precision.weight_bytes + self.experts.other * PLAIN_BYTES
            routed = self.experts.layers * experts_hit * one
        return self._linear * outside + self._plain * PLAIN_BYTES + routed
