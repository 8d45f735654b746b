"""The model in the forms that other runtimes read, made once, in the peers' environment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Conversions:
    """Makes each form where it is not there yet."""

    needs = ("torch", "transformers")

    def convert(self, model: str, folder: str, window: int) -> dict[str, Any]:
        """Convert a model; return what could not be made, and why.

        Args:
            model: A folder that sentence-transformers saved.
            folder: Gets `onnx/`, with the tokenizer that fastembed wants, `onnx-int8/`,
                `openvino.xml` and `ctranslate2/`.
            window: Tokens of a text that the model reads.
        """
        source, target = Path(model), Path(folder)
        steps = {
            "onnx": lambda path: self._onnx(source, path, window),
            "onnx-int8": lambda path: self._int8(target / "onnx", path),
            "openvino": lambda path: self._openvino(source, path),
            "ctranslate2": lambda path: self._ctranslate2(source, path),
        }
        missing = {}
        for name, make in steps.items():
            if (target / name).exists():
                continue
            unfinished = target / f"{name}.part"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            try:
                make(unfinished)
            except Exception as error:  # whatever a converter raises, the others go on
                missing[name] = f"{type(error).__name__}: {error}"[:200]
            else:
                unfinished.rename(target / name)
        return {"missing": missing}

    def _onnx(self, model: Path, folder: Path, window: int) -> None:
        import torch

        module, example = _forward(model)
        names = [*INPUTS, "last_hidden_state"]
        torch.onnx.export(
            module,
            example,
            str(folder / "model.onnx"),
            input_names=list(INPUTS),
            output_names=["last_hidden_state"],
            dynamic_axes={name: {0: "texts", 1: "tokens"} for name in names},
            dynamo=False,
            opset_version=17,
        )
        for name in ("config.json", "special_tokens_map.json", "tokenizer.json", "vocab.txt"):
            shutil.copy(model / name, folder)
        settings = json.loads((model / "tokenizer_config.json").read_text())
        settings["model_max_length"] = window
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))

    def _int8(self, onnx: Path, folder: Path) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            onnx / "model.onnx",
            folder / "model.onnx",
            per_channel=True,
            weight_type=QuantType.QInt8,
        )

    def _openvino(self, model: Path, folder: Path) -> None:
        import openvino

        module, example = _forward(model)
        converted = openvino.convert_model(module, example_input=example)
        openvino.save_model(converted, folder / "model.xml", compress_to_fp16=False)

    def _ctranslate2(self, model: Path, folder: Path) -> None:
        from ctranslate2.converters import TransformersConverter

        TransformersConverter(str(model)).convert(str(folder), force=True)


def _forward(model: Path) -> tuple[Any, Any]:
    """Return the transformer as a module of three inputs and one output, and an example."""
    import torch
    from transformers import AutoModel

    class Forward(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = AutoModel.from_pretrained(model, attn_implementation="eager").eval()

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            return self.transformer(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
            ).last_hidden_state

    ids = torch.randint(1000, 2000, (2, 7))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return Forward(), (ids, mask, torch.zeros_like(ids))


SYSTEMS = {"conversions": Conversions}
