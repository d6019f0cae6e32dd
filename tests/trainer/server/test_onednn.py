"""Linear layers by oneDNN, against torch's own."""

import pytest
import torch

from finetune_server.onednn import OneDnnLinear, use_onednn

pytestmark = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()),  # type: ignore[no-untyped-call]
    reason="this torch has not both libraries",
)


class Model(torch.nn.Module):
    """Large and small layers, one with a bias, and a head that is tied to the embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = torch.nn.Embedding(700, 512)
        self.large = torch.nn.Linear(512, 512)
        self.plain = torch.nn.Linear(512, 512, bias=False)
        self.small = torch.nn.Linear(512, 16)
        self.head = torch.nn.Linear(512, 700, bias=False)
        self.head.weight = self.embeddings.weight

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.plain(self.large(self.embeddings(ids)))
        return self.small(hidden), self.head(hidden)


@pytest.mark.parametrize("shape", [(1, 1), (8, 1), (3, 7), (32, 40)], ids=str)
@torch.inference_mode()
def test_the_numbers_are_torch_s_own(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = Model().eval()
    ids = torch.randint(0, 700, shape)
    wanted = model(ids)

    use_onednn(model)

    for found, one in zip(model(ids), wanted, strict=True):
        torch.testing.assert_close(found, one, atol=1e-4, rtol=1e-4)


def test_only_what_pays_is_replaced() -> None:
    model, half = Model(), Model().bfloat16()

    use_onednn(model)
    use_onednn(half)

    replaced = {name for name, module in model.named_modules() if isinstance(module, OneDnnLinear)}
    assert replaced == {"large", "plain", "head"}
    assert not any(isinstance(module, OneDnnLinear) for module in half.modules())


def test_the_numbers_of_tied_weights_are_in_memory_once() -> None:
    model = Model()

    use_onednn(model)

    assert isinstance(model.head, OneDnnLinear)
    assert model.head._weight.data_ptr() == model.embeddings.weight.data_ptr()
