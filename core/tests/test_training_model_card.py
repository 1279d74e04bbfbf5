"""The card of a trained model: its code runs, its front matter is the hub's, and others' cards stay."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from PIL import Image

from anytask.checkpoint import load_checkpoint, save_checkpoint
from anytask.training.report.model_card import write_model_card

MakeCheckpoint = Callable[..., Path]
RECIPE = {"start": "mini", "steps": 500, "learning_rate": 2e-5, "freeze": [], "lora_alpha": None, "layers": (1, 2)}
EVALUATION = [
    {"step": "0", "held out nDCG@10": "0.25", "held out accuracy@1": "0.125"},
    {"step": "250", "held out nDCG@10": "0.61234567", "held out accuracy@1": ""},
    {"step": "500", "held out nDCG@10": "0.5", "held out accuracy@1": "0.4"},
]
DATA = {
    "tasks": {"questions": 1200, "small | task": 30},
    "held_out": 60,
    "instructions": {"questions": ("Represent the question for search: ", "Represent the page; Input: ")},
}


@pytest.fixture
def folder(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> Path:
    """A saved model with instructions that are not the defaults."""
    checkpoint = load_checkpoint(make_checkpoint())
    checkpoint.prompts = {"query": 'Represent the "quoted" question: ', "document": "Represent the é page: "}
    save_checkpoint(checkpoint, tmp_path / "my model")
    return tmp_path / "my model"


def card_of(folder: Path, **options: Any) -> str:
    path = write_model_card(folder, **{"recipe": RECIPE, "data": DATA, **options})
    assert path == folder / "README.md"
    return path.read_text("utf-8")


def test_front_matter(folder: Path) -> None:
    card_of(folder, evaluation=EVALUATION, base_model="hkunlp/instructor-base", licence="apache-2.0")
    data = ModelCard.load(folder / "README.md").data
    assert data.library_name == "sentence-transformers"
    assert data.pipeline_tag == "sentence-similarity"
    assert {"sentence-transformers", "instructor"} <= set(data.tags)
    assert data.base_model == "hkunlp/instructor-base"
    assert data.license == "apache-2.0"
    assert data.metrics == ["held out nDCG@10", "held out accuracy@1"]


def test_front_matter_without_what_is_not_known(folder: Path, tmp_path: Path) -> None:
    for base_model in (None, "mini", str(tmp_path), "~/models/gtr"):
        text = card_of(folder, base_model=base_model)
        data = ModelCard.load(folder / "README.md").data.to_dict()
        assert not {"base_model", "license", "metrics"} & set(data)
        assert str(tmp_path.parent) not in text
    assert "It was trained from gtr." in text


def test_describes_the_checkpoint(folder: Path) -> None:
    text = card_of(folder)
    assert "\n# my model\n" in text
    assert "3 layers, 4 heads of 8, width 32, feed-forward 64 (relu)" in text
    assert "dense 32 to 24" in text
    assert "| dimension | 24 |" in text
    assert "512 tokens" in text


def test_its_size_is_without_the_runs_checkpoints(folder: Path) -> None:
    before = card_of(folder)
    save_checkpoint(load_checkpoint(folder), folder / "training" / "checkpoints" / "step-000010")
    assert card_of(folder) == before
    size = sum(path.stat().st_size for path in (folder / "model.safetensors", folder / "2_Dense/model.safetensors"))
    assert f"| weights | float32, {size / 1e6:,.1f} MB |" in before


def test_describes_a_checkpoint_without_a_dense_layer(make_checkpoint: MakeCheckpoint) -> None:
    text = card_of(make_checkpoint(dense=None))
    assert "| dimension | 32 |" in text
    assert "dense" not in text


def test_its_code_runs_and_both_libraries_agree(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", card_of(folder), flags=re.S)
    assert len(blocks) == 2
    monkeypatch.chdir(folder.parent)
    similarities = []
    for block in blocks:
        assert 'Represent the \\"quoted\\" question: ' in block
        assert "Represent the é page: " in block
        names: dict[str, Any] = {}
        exec(block, names)
        similarities.append(names["model"].similarity(names["queries"], names["documents"]))
    assert similarities[0].shape == (1, 2)
    assert abs(similarities[0] - similarities[1].numpy()).max() < 1e-5
    assert capsys.readouterr().out.count("[[") == 2


def test_tables(folder: Path) -> None:
    text = card_of(folder, evaluation=EVALUATION)
    assert "| learning_rate | 2e-05 |" in text
    assert "| layers | 1, 2 |" in text
    assert "freeze" not in text
    assert "lora_alpha" not in text
    assert "1,230 records of 2 tasks; 60 more were held out for evaluation." in text
    assert "| questions | 1,200 | `Represent the question for search: ` | `Represent the page; Input: ` |" in text
    assert "| small \\| task | 30 |  |  |" in text
    assert "| figure | before training | step 500 |" in text
    assert "| held out nDCG@10 | 0.25 | 0.5 |" in text
    assert "| held out accuracy@1 | 0.125 | 0.4 |" in text
    assert re.search(r"Made with Python \d.*anytask \d.*torch \d.*transformers \d.*tokenizers \d", text)


def test_figures_are_those_of_the_kept_step(folder: Path) -> None:
    text = card_of(folder, evaluation=EVALUATION, step=250)
    assert "| figure | before training | step 250 |" in text
    assert "| held out nDCG@10 | 0.25 | 0.6123 |" in text
    assert "| held out accuracy@1 | 0.125 |  |" in text


def test_sections_of_nothing_are_left_out(folder: Path) -> None:
    text = card_of(folder, data={})
    assert "## Data" not in text
    assert "## Figures" not in text
    assert "![" not in text
    assert "held out" not in card_of(folder, data={"tasks": {"one": 5}})


def test_many_tasks_are_summed_up(folder: Path) -> None:
    text = card_of(folder, data={"tasks": {f"task {number:03}": 1000 + number for number in range(130)}})
    assert "| task 129 | 1,129 |" in text
    assert "| task 030 | 1,030 |" in text
    assert "task 029" not in text
    assert f"| 30 smaller tasks | {sum(range(1000, 1030)):,} |" in text


def test_curves_are_copied_beside_it(folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (4, 3), "red").save(tmp_path / "drawn.png")
    text = card_of(folder, curves=tmp_path / "drawn.png")
    shown = re.search(r"!\[.+\]\((.+)\)", text)
    assert shown is not None
    with Image.open(folder / shown[1]) as image:
        assert image.size == (4, 3)


def test_its_own_card_is_written_anew(folder: Path) -> None:
    first = card_of(folder)
    second = card_of(folder, recipe={"steps": 7})
    assert "| steps | 500 |" in first
    assert "| steps | 7 |" in second
    assert "500" not in second.split("## Training")[1].split("## Data")[0]


def test_others_cards_stay(folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").write_text("my own words", "utf-8")
    Image.new("RGB", (4, 3)).save(tmp_path / "drawn.png")
    assert write_model_card(folder, recipe=RECIPE, data=DATA, curves=tmp_path / "drawn.png") is None
    assert (folder / "README.md").read_text("utf-8") == "my own words"
    assert not (folder / "curves.png").exists()


def test_removing_the_mark_keeps_an_edited_card(folder: Path) -> None:
    text = card_of(folder)
    edited = "\n".join(line for line in text.splitlines() if not line.startswith("<!--")) + "\nMine."
    (folder / "README.md").write_text(edited, "utf-8")
    assert write_model_card(folder, recipe=RECIPE, data=DATA) is None
    assert (folder / "README.md").read_text("utf-8") == edited
