"""The recipe of the bundled model: vocabulary, conversion of the teacher, batches."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

RECIPE = Path(__file__).parents[1] / "recipes" / "mini"
SENTENCE = "the a cat dog sat ran on under mat tree red old in big small house with and of light"
WORDS = SENTENCE.split()


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a module of the recipe, whose modules import each other by their bare names."""
    import importlib

    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(RECIPE))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).parent == RECIPE:
            del sys.modules[name]


@pytest.fixture
def bert_tokenizer(tmp_path: Path) -> Path:
    pieces = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", *WORDS, "中", "##中", "é", "—", "##s"]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 3), ("[SEP]", 4)]
    )
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding()
    path = tmp_path / "bert.json"
    tokenizer.save(str(path))
    return path


def test_vocabulary_is_the_teachers_with_t5s_ends(recipe: Any, bert_tokenizer: Path) -> None:
    tokenizer, kept = recipe("vocabulary").t5_tokenizer(bert_tokenizer)
    theirs = Tokenizer.from_file(str(bert_tokenizer))
    assert tokenizer.encode("The cats — 中").tokens == ["the", "cat", "##s", "—", "<unk>", "</s>"]
    assert [tokenizer.token_to_id(name) for name in ("<pad>", "</s>", "<unk>")] == [0, 1, 2]
    assert [theirs.id_to_token(i) for i in kept[:3]] == ["[PAD]", "[SEP]", "[UNK]"]
    assert all(tokenizer.id_to_token(i) == theirs.id_to_token(old) for i, old in list(enumerate(kept))[3:])
    assert len(tokenizer.encode("the cat " * 20).ids) == 41
    assert tokenizer.get_vocab_size() == len(kept)


def tiny_bert(**changes: Any) -> Any:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        initializer_range=0.1,
        **changes,
    )
    bert = BertModel(config).eval()
    with torch.no_grad():
        for name, parameter in bert.named_parameters():
            if "LayerNorm" in name or name.endswith("bias"):
                parameter.add_(0.2 * torch.randn_like(parameter))
    return bert


def random_texts(count: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [[3, *rng.integers(5, 60, rng.integers(3, 20)).tolist(), 4] for _ in range(count)]


@pytest.mark.parametrize("layers", [(0, 1, 2), (0, 2)])
def test_conversion_comes_near_the_teacher_on_texts_it_was_not_fitted_to(recipe: Any, layers: tuple[int, ...]) -> None:
    conversion = recipe("conversion")
    bert = tiny_bert()
    fitted = conversion.activations(bert, random_texts(300, 1))
    encoder, dense = conversion.Conversion(bert, fitted, layers).fit()
    assert encoder.config.num_layers == len(layers)

    unseen = conversion.activations(bert, random_texts(100, 2))
    means = conversion.Conversion(bert, unseen, layers).means
    with torch.inference_mode():
        ours = means(encoder(torch.cat(unseen.tokens), unseen.groups)) @ dense.T
        words = means(encoder.embed_tokens(torch.cat(unseen.tokens)))
    theirs = means(unseen.of("2.fed"))
    theirs, ours, words = (rows - rows.mean(0) for rows in (theirs, ours, words))
    near = F.cosine_similarity(ours, theirs).mean()
    assert near > 0.8
    assert near > F.cosine_similarity(words, theirs).mean() + 0.1


def test_heads_are_put_in_the_order_in_which_their_profiles_agree(recipe: Any) -> None:
    agreement = recipe("conversion")._agreement
    profile = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    shuffled = torch.tensor([2, 0, 3, 1])
    order, table = agreement(torch.stack([profile, profile[shuffled]]), torch.ones(32))
    assert torch.equal(profile[shuffled][order[1]], profile[order[0]])
    assert torch.allclose(table, profile)


@pytest.fixture
def prepared(recipe: Any, bert_tokenizer: Path, tmp_path: Path) -> Any:
    """What `prepare.py` leaves, of a hundred made-up texts and three tasks."""
    rng = np.random.default_rng(0)
    tokenizer, _ = recipe("vocabulary").t5_tokenizer(bert_tokenizer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    prepare, tasks = recipe("prepare"), recipe("tasks")
    texts = [" ".join(rng.choice(WORDS, rng.integers(3, 12))) + f" {number}" for number in range(100)]
    prepare.save(tmp_path / "tokens.npz", **prepare.packed(tokenizer, texts))
    (tmp_path / "teacher").mkdir()
    vectors = rng.normal(size=(100, 8)).astype(np.float32)
    np.save(tmp_path / "teacher" / "0000.npy", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    prepare.rotate(tmp_path)
    labelled = [(text, "even" if number % 2 else "odd") for number, text in enumerate(texts)]
    pairs = [(texts[i], texts[i + 1], texts[i + 2] if i % 4 else None) for i in range(0, 90, 2)]
    prepare.write_tasks(
        [
            tasks.Task("parity", tasks.both("Represent the text for classifying its number: "), labelled=labelled),
            tasks.Task("next", ("Represent the text for finding the next one: ", "Represent the text: "), pairs),
        ],
        tokenizer,
        tmp_path,
    )
    return recipe("store").Prepared(tmp_path, 16)


def test_batches_are_the_same_whenever_they_are_asked_for(recipe: Any, prepared: Any) -> None:
    batches = recipe("batches")
    stage = batches.Stage(20, taught_tokens=64, instructed=0.5, task_tokens=96)
    one, other = batches.MiniBatches(prepared, stage, 1), batches.MiniBatches(prepared, stage, 1)
    for step in (7, 3, 19):
        first, again = one[step], other[step]
        assert [text.ids.tolist() for text in first.texts] == [text.ids.tolist() for text in again.texts]
        assert torch.equal(first.roles.keys, again.roles.keys)
    assert {one[step].name for step in range(20)} == {"parity", "next"}


def test_texts_of_one_label_are_no_negatives_of_each_other(recipe: Any, prepared: Any) -> None:
    batches = recipe("batches")
    source = batches.MiniBatches(prepared, batches.Stage(20, taught_tokens=64, instructed=0.5, task_tokens=96), 1)
    batch = next(source[step] for step in range(20) if source[step].name == "parity")
    queries, positives, _ = batch.roles.sides(batch.roles.keys)
    assert torch.equal(queries, positives)
    assert set(queries.tolist()) == {0, 1}
    ends = [text.ids[text.pool_start :].tolist() for text in batch.texts[: 2 * batch.roles.pairs]]
    assert len({tuple(end) for end in ends}) == len(ends), "a text came twice"


def test_taught_texts_have_the_teachers_vector_rotated(recipe: Any, prepared: Any, tmp_path: Path) -> None:
    batches = recipe("batches")
    source = batches.MiniBatches(prepared, batches.Stage(5, taught_tokens=64, instructed=0.0), 2)
    batch = source[0]
    assert batch.name == "distillation"
    assert batch.roles.pairs == 0
    assert batch.roles.teacher is not None
    assert len(batch.roles.teacher) == len(batch.texts)
    rotated, original = prepared.teacher.astype(np.float32), np.load(tmp_path / "teacher" / "0000.npy")
    np.testing.assert_allclose(rotated @ rotated.T, original @ original.T, atol=2e-3)
    assert (np.diff(np.square(rotated).mean(0)) <= 1e-3).all(), "the leading dimensions hold the most"


def test_sentiments_cover_the_emotions_once(recipe: Any) -> None:
    emotions = [emotion for group in recipe("tasks").SENTIMENTS.values() for emotion in group.split()]
    assert len(emotions) == len(set(emotions)) == 28


@pytest.mark.usefixtures("prepared")
def test_prepared_tasks_are_described_in_json(tmp_path: Path) -> None:
    told = json.loads((tmp_path / "tasks.json").read_text("utf-8"))
    assert [task["name"] for task in told] == ["parity", "next"]
    assert [task["labelled"] for task in told] == [True, False]
