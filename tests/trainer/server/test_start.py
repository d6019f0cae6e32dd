"""What a server does before it imports torch."""

import json
import sys
from pathlib import Path

import pytest

from finetune_server.__main__ import spare_imports


@pytest.mark.parametrize(
    ("config", "spared"),
    [
        ({}, {"scipy", "bitsandbytes"}),
        ({"quantization_config": {"quant_method": "gptq"}}, {"scipy", "bitsandbytes"}),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, {"scipy"}),
        (None, set()),
    ],
    ids=["plain", "stored in another", "stored in bitsandbytes", "no model"],
)
def test_what_no_server_of_text_needs_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, object] | None, spared: set[str]
) -> None:
    modules = {name: module for name, module in sys.modules.items() if name not in ("scipy", "bitsandbytes")}
    monkeypatch.setattr(sys, "modules", modules)
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    spare_imports(tmp_path)
    assert {name for name, module in modules.items() if module is None} >= spared
    assert not ({"scipy", "bitsandbytes"} - spared) & modules.keys()
