"""Products with one large weight: laid out once, and few kernels for many numbers of rows."""

import pytest
import torch
from torch import Tensor

from spelldown.model.spelling.products import Product
from spelldown.model.spelling.products import _multiply as multiply
from spelldown.model.spelling.products import _packs as packs


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_product_with_a_weight_laid_out_once_equals_the_plain_one(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight = torch.randn(24, 40).to(dtype)
    product, back = Product(weight), Product(weight.t())
    for rows in (1, 7, 32):
        x, y = torch.randn(rows, 40).to(dtype), torch.randn(rows, 24).to(dtype)
        torch.testing.assert_close(product(x), x @ weight.t())
        torch.testing.assert_close(back(y), y @ weight)


@pytest.mark.parametrize("tiles", [True, False])
def test_few_rows_are_multiplied_as_many_where_that_takes_no_longer(
    monkeypatch: pytest.MonkeyPatch, tiles: bool
) -> None:
    if not packs(torch.bfloat16):
        pytest.skip("weights are not laid out in bfloat16 here")
    multiplied: list[int] = []

    def watched(rows: Tensor, packed: Tensor) -> Tensor:
        multiplied.append(len(rows))
        return multiply(rows, packed)

    monkeypatch.setattr("spelldown.model.spelling.products.multiplies_tiles", lambda: tiles)
    monkeypatch.setattr("spelldown.model.spelling.products._multiply", watched)
    weight = torch.randn(24, 40).bfloat16()
    product = Product(weight)
    for rows in (1, 15, 16, 17):
        x = torch.randn(rows, 40).bfloat16()
        torch.testing.assert_close(product(x), x @ weight.t())
    assert multiplied == ([16, 16, 16, 32] if tiles else [1, 15, 16, 17])


def test_a_weight_that_cannot_be_laid_out_is_multiplied_plainly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    weight, rows = torch.randn(24, 40), torch.randn(7, 40)
    expected = Product(weight)(rows)
    monkeypatch.setattr("spelldown.model.spelling.products._packs", lambda dtype: False)
    plain = Product(weight)
    assert plain.packed is None
    torch.testing.assert_close(plain(rows), expected)
