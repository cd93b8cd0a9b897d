"""Spectrum fusion (C8) of SMORE (Ong and Khong, WSDM 2025, arXiv:2412.14978).

Each modality is projected to one space; its orthonormal real FFT along the features is multiplied by a learnt complex
filter; the filtered spectra of the present modalities are multiplied with each other and with one more filter; the
inverse FFT is the result. What several modalities share is strengthened, what is noise in one is damped.

A product alone cannot tell x from -x, so the projections' biases start as an impulse, whose spectrum is 1 everywhere:
the product starts as prod(1 + s_m) = 1 + sum(s_m) + products of higher order, that is, as a sum with interactions. An
absent modality, left out of the product, is then the factor 1 of a modality that says nothing.
Cost per item: sum(D_m) D multiplications, and M + 1 FFTs of length D.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from fusionrec.fusion.base import FusionSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


class Spectrum(FusionSpec):
    """``kind: spectrum``."""

    kind: Literal["spectrum"] = "spectrum"

    def build(self, dims: Mapping[str, int], dim: int | None) -> nn.Module:
        """The natural width is the widest modality's."""
        import torch
        from torch import nn

        from fusionrec.fusion.tokens import Tokens, at_least_float32

        width = max(dims.values()) if dim is None else dim

        def ones() -> nn.Parameter:
            """A filter that lets everything pass: (F, 2), real and imaginary parts (bundles hold plain dtypes)."""
            return nn.Parameter(torch.tensor([1.0, 0.0]).repeat(width // 2 + 1, 1))

        class SpectrumFusion(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.dim = width
                self.tokens = Tokens(dims, width)
                for linear in self.tokens.project:
                    nn.init.orthogonal_(
                        linear.weight, gain=len(dims) ** -0.5
                    )  # the sum of the s_m starts near unit size
                    nn.init.zeros_(linear.bias)
                    nn.init.constant_(linear.bias[:1], width**0.5)
                self.filters = nn.ParameterList(ones() for _ in dims)
                self.fused = ones()

            def forward(self, x: dict[str, Tensor], mask: Tensor) -> Tensor:
                v_BMD = at_least_float32(self.tokens(x, mask))  # FFT libraries know no bfloat16
                if len(mask) == 0:
                    return v_BMD.sum(1)  # FFT libraries refuse an empty batch
                spectrum_BMF = torch.fft.rfft(v_BMD, dim=-1, norm="ortho")
                product_BF = torch.view_as_complex(self.fused).expand(len(mask), -1)
                for column, own in enumerate(self.filters):
                    filtered_BF = spectrum_BMF[:, column] * torch.view_as_complex(own)
                    product_BF = product_BF * torch.where(
                        mask[:, column, None], filtered_BF, torch.ones_like(filtered_BF)
                    )
                return torch.fft.irfft(product_BF, n=width, dim=-1, norm="ortho")

        return SpectrumFusion()
