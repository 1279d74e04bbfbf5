"""InstructorEmbedding 1.0.1 with the packages of its time, in a benchmark."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from InstructorEmbedding import INSTRUCTOR
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1]))
from serve import Embed, serve
from texts import INSTRUCTION


def link(source: str, target: str) -> None:
    Path(target).symlink_to(Path(source).resolve())


def read(folder: Path) -> INSTRUCTOR:
    """The model of a folder, told as in the package's time: pickled dense weights, no word on the prompt's pooling."""
    with TemporaryDirectory() as temporary:
        old = Path(temporary) / "model"
        shutil.copytree(folder, old, copy_function=link)
        torch.save(load_file(folder / "2_Dense" / "model.safetensors"), old / "2_Dense" / "pytorch_model.bin")
        config = json.loads((folder / "1_Pooling" / "config.json").read_text("utf-8"))
        config.pop("include_prompt", None)
        (old / "1_Pooling" / "config.json").unlink()
        (old / "1_Pooling" / "config.json").write_text(json.dumps(config), "utf-8")
        model = INSTRUCTOR(str(old), device="cpu")
    model.tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return model


def load(_: str, folder: str, threads: str) -> Embed:
    torch.set_num_threads(int(threads))
    model = read(Path(folder))
    return lambda texts: model.encode([[INSTRUCTION, text] for text in texts], normalize_embeddings=True)


if __name__ == "__main__":
    serve(lambda: load(*sys.argv[1:]))
