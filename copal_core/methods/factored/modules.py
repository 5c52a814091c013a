"""Two small linears in place of one, inside a model of transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from copal_core.errors import InvalidValueError
from copal_core.methods.decomposition import Factors


class FactoredLinear(nn.Module):
    """y = left (right x) + bias. left: (out, r); right: (r, in)."""

    def __init__(self, left: Tensor, right: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.left = nn.Parameter(left)
        self.right = nn.Parameter(right)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return F.linear(
            F.linear(inputs, self.right), self.left, self.bias
        )  # (..., in) -> (..., r) -> (..., out)


class ScaledBases(nn.Module):
    """y = Σ_i s_i (1 + g_i) u_i (v_iᵀ x), and new bases: left (right x). Only g and the new bases learn.

    left: (out, k) u in columns; scales: (k,); right: (k, in) v in rows.
    """

    def __init__(self, left: Tensor, scales: Tensor, right: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.u: Tensor
        self.v: Tensor
        self.start: Tensor
        for name, tensor in (("u", left), ("v", right), ("start", scales)):
            self.register_buffer(name, tensor, persistent=False)
        self.gain = nn.Parameter(torch.zeros_like(scales))  # so that a learning rate is relative to the scale
        self.new_left: nn.Parameter | None = None
        self.new_right: nn.Parameter | None = None
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @property
    def scales(self) -> Tensor:
        return self.start * (1 + self.gain)

    def keep(self, chosen: Tensor) -> None:
        """Drop every basis but the chosen ones (indices)."""
        scales = self.scales.detach()[chosen]
        self.u, self.v, self.start = self.u[:, chosen].contiguous(), self.v[chosen].contiguous(), scales
        self.gain = nn.Parameter(torch.zeros_like(scales))

    def add(self, count: int, generator: torch.Generator) -> None:
        """New bases that change nothing until they are trained: right at random, left zero."""
        rows, columns = self.u.shape[0], self.v.shape[1]
        right = torch.randn(count, columns, generator=generator) / columns**0.5
        self.new_right = nn.Parameter(right.to(self.v))
        self.new_left = nn.Parameter(torch.zeros(rows, count).to(self.u))

    def factors(self) -> Factors:
        """The kept and the new bases as one pair of factors, float32."""
        left, right = (self.u * self.scales).detach(), self.v
        if self.new_left is not None and self.new_right is not None:
            left = torch.cat([left, self.new_left.detach()], dim=1)
            right = torch.cat([right, self.new_right.detach()])
        return Factors(left.float(), right.float())

    def forward(self, inputs: Tensor) -> Tensor:
        output = F.linear(F.linear(inputs, self.v) * self.scales, self.u, self.bias)
        if self.new_left is not None and self.new_right is not None:
            output = output + F.linear(F.linear(inputs, self.new_right), self.new_left)
        return output


def install(model: nn.Module, factors: Mapping[str, Tensor]) -> nn.Module:
    """Replace layers by their factors, for good: 'NAME.left' (out, r) and 'NAME.right' (r, in), as files hold them.

    Returns the model. Raises InvalidValueError when a factor does not fit its layer.
    """
    for name in sorted({key.rpartition(".")[0] for key in factors}):
        linear = model.get_submodule(name)
        if not isinstance(linear, nn.Linear):
            raise InvalidValueError(
                f"'{name}' is no linear layer of this model; load the checkpoint the factors are of"
            )
        left, right = (factors[f"{name}.{side}"].to(linear.weight) for side in ("left", "right"))
        if (left.shape[0], right.shape[1]) != tuple(linear.weight.shape):
            raise InvalidValueError(
                f"the factors of '{name}' do not fit a layer of {tuple(linear.weight.shape)}"
            )
        model.set_submodule(name, FactoredLinear(left, right, bias_of(linear)))
    return model


@contextmanager
def replaced(model: nn.Module, modules: Mapping[str, nn.Module]) -> Iterator[nn.Module]:
    """Let `model` compute with other modules in place of named ones; the old ones come back."""
    before = {name: model.get_submodule(name) for name in modules}
    try:
        for name, module in modules.items():
            model.set_submodule(name, module)
        yield model
    finally:
        for name, module in before.items():
            model.set_submodule(name, module)


def factored_modules(model: nn.Module, factors: Mapping[str, Factors]) -> dict[str, FactoredLinear]:
    """A FactoredLinear for each of `factors`, with copies of the factors in the precision of the layer it replaces."""
    made = {}
    for name, one in factors.items():
        linear = model.get_submodule(name)
        like = next(linear.parameters())
        left, right = (t.detach().to(like, copy=True).contiguous() for t in (one.left, one.right))
        made[name] = FactoredLinear(left, right, bias_of(linear))
    return made


def bias_of(linear: nn.Module) -> Tensor | None:
    bias = getattr(linear, "bias", None)
    return None if bias is None else bias.detach()
