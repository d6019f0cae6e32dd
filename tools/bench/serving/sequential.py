"""One request at a time with plain peft: `python -m tools.bench.serving.sequential REQUEST.json`; figures on stdout.

What people write without a server that batches: `set_adapter`, `generate`, the next one.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path


def main() -> None:
    """Load everything, warm up, and answer every prompt once."""
    request = json.loads(Path(sys.argv[1]).read_text())
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # As many threads as our server takes for a model of this size, so that batching alone makes the difference.
    torch.set_num_threads(request["threads"])
    tokenizer = AutoTokenizer.from_pretrained(request["base"])
    model = AutoModelForCausalLM.from_pretrained(request["base"], dtype=torch.float32)
    for number, path in enumerate(request["adapters"]):
        if number == 0:
            model = PeftModel.from_pretrained(model, path, adapter_name="0")
        else:
            model.load_adapter(path, adapter_name=str(number))
    model.eval()

    def answer(number: int, prompt: str, count: int) -> int:
        model.set_adapter(str(number % len(request["adapters"])))
        inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=count, do_sample=False)
        text = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])
        assert isinstance(text, str)
        return int(output.shape[1] - inputs["input_ids"].shape[1])

    answer(0, request["prompts"][0], 4)
    wall, cpu = time.monotonic(), time.process_time()
    tokens = sum(answer(number, prompt, request["max_tokens"]) for number, prompt in enumerate(request["prompts"]))
    figures = {
        "tokens": tokens,
        "seconds": time.monotonic() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    Path(sys.argv[1]).with_suffix(".figures.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    main()
