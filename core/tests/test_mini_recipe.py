"""The recipe of the bundled model: vocabulary, conversion of the teacher, batches."""

from __future__ import annotations

import gzip
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn

RECIPE = Path(__file__).parents[1] / "recipes" / "mini"
SENTENCE = "the a cat dog sat ran on under mat tree red old in big small house with and of light"
WORDS = SENTENCE.split()
NOTHING = np.array([], dtype=np.int32)


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


def test_conversion_comes_near_the_teacher_on_texts_it_was_not_fitted_to(recipe: Any) -> None:
    conversion = recipe("conversion")
    bert = tiny_bert()
    fitted = conversion.activations(bert, random_texts(300, 1))
    encoder, dense = conversion.Conversion(bert, fitted).fit()
    assert encoder.config.num_layers == 3

    unseen = conversion.activations(bert, random_texts(100, 2))
    means = conversion.Conversion(bert, unseen).means
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
    tokenizer, kept = recipe("vocabulary").t5_tokenizer(bert_tokenizer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    prepare, tasks = recipe("prepare"), recipe("tasks")
    texts = [" ".join(rng.choice(WORDS, rng.integers(3, 12))) + f" {number}" for number in range(100)]
    store = recipe("store")
    store.write_texts(tmp_path / store.TEXTS, prepare.token_ids(tokenizer, texts, 16))
    prepare.rotate(
        recipe("teacher").Teacher(tiny_bert(), kept, cls=3), store.TextStore(tmp_path / store.TEXTS, 16), tmp_path
    )
    labelled = [(text, "even" if number % 2 else "odd") for number, text in enumerate(texts)]
    pairs = [(texts[i], texts[i + 1], texts[i + 2] if i % 4 else None) for i in range(0, 90, 2)]
    prepare.write_tasks(
        [
            tasks.Task("parity", tasks.both("Represent the text for classifying its number: "), labelled=labelled),
            tasks.Task("next", ("Represent the text for finding the next one: ", "Represent the text: "), pairs),
            tasks.Task(
                "partly",
                tasks.both("Represent the text for classifying its first half: "),
                labelled=[
                    (f"{text} tree" if number % 3 else text, label) for number, (text, label) in enumerate(labelled)
                ],
                parts=[text if number % 3 else None for number, text in enumerate(texts)],
            ),
        ],
        tokenizer,
        tmp_path,
    )
    return store.Prepared(tmp_path)


@pytest.fixture
def teacher(recipe: Any, prepared: Any, bert_tokenizer: Path) -> Any:
    _, kept = recipe("vocabulary").t5_tokenizer(bert_tokenizer)
    return recipe("teacher").Teacher(tiny_bert(), kept, prepared.rotation, cls=3)


@pytest.mark.usefixtures("prepared")
def test_a_folder_of_an_earlier_form_is_told(recipe: Any, tmp_path: Path) -> None:
    store = recipe("store")
    (tmp_path / store.TASK_ROWS).rename(tmp_path / "task_rows.npz")
    with pytest.raises(FileNotFoundError, match=r"has no task_rows\.arrow: run prepare\.py"):
        store.Prepared(tmp_path)


def test_texts_are_kept_as_they_are_but_cut(recipe: Any, bert_tokenizer: Path, tmp_path: Path) -> None:
    tokenizer, _ = recipe("vocabulary").t5_tokenizer(bert_tokenizer)
    store, texts = recipe("store"), ["cat", "", " ".join(WORDS * 30), "tree cat"]
    store.write_texts(tmp_path / "texts", recipe("prepare").token_ids(tokenizer, texts))
    kept = store.TextStore(tmp_path / "texts")
    for place, text in enumerate(texts):
        whole = tokenizer.encode(text, add_special_tokens=False).ids
        assert kept.own_ids(place).tolist() == whole[: store.MAX_TOKENS - 1]
    assert kept.lengths(np.arange(4)).max() == store.MAX_TOKENS


def test_batches_are_the_same_whenever_they_are_asked_for(recipe: Any, prepared: Any, teacher: Any) -> None:
    batches = recipe("batches")
    stage = batches.Stage(20, taught_tokens=64, instructed=0.5, task_tokens=96)
    one, other = batches.MiniBatches(prepared, stage, 1, teacher), batches.MiniBatches(prepared, stage, 1, teacher)
    for step in (7, 3, 19):
        first, again = one[step], other[step]
        assert [text.ids.tolist() for text in first.texts] == [text.ids.tolist() for text in again.texts]
        assert torch.equal(first.roles.keys, again.roles.keys)
    assert {one[step].name for step in range(20)} == {"parity", "next", "partly"}


def test_a_batch_of_labelled_texts_has_every_label_and_source(recipe: Any) -> None:
    balanced = recipe("batches").balanced
    # 900 texts of label 0 and 90 of label 1; of each nine tenths are of source 0
    rows = np.array([(text, text >= 900, text % 10 == 0, -1) for text in range(990)], dtype=np.int32)
    drawn = balanced(rows, 60, np.random.default_rng(0))
    assert len(np.unique(drawn[:, 0])) == 60
    assert {tuple(row) for row in drawn.tolist()} < {tuple(row) for row in rows.tolist()}
    assert 20 <= drawn[:, 1].sum() <= 40
    assert 6 <= drawn[:, 2].sum() <= 25
    assert len(balanced(rows[:5], 60, np.random.default_rng(0))) == 5


def test_a_batch_has_so_few_labels_that_each_comes_more_than_once(recipe: Any) -> None:
    rows = np.array([(text, text % 500, 0, -1) for text in range(2000)], dtype=np.int32)
    drawn = recipe("batches").balanced(rows, 64, np.random.default_rng(0))
    labels, counts = np.unique(drawn[:, 1], return_counts=True)
    assert len(labels) == 16
    assert counts.min() > 1


def test_labelled_texts_come_first_and_with_their_labels(recipe: Any, prepared: Any, teacher: Any) -> None:
    batches = recipe("batches")
    stage = batches.Stage(20, taught_tokens=64, instructed=0.5, task_tokens=96)
    source = batches.MiniBatches(prepared, stage, 1, teacher)
    found = [source[step] for step in range(20)]
    batch = next(batch for batch in found if batch.name == "parity")
    assert batch.roles.pairs == 0
    assert set(batch.labels.tolist()) == {0, 1}
    assert len(batch.labels) + len(batch.lesson.ends) == len(batch.texts)
    keys = batch.roles.keys.tolist()
    again = keys[sum(key < 0 for key in keys) + len(batch.labels) :]
    assert again == keys[: len(batch.labels) : batches.AGAIN], "some are taught too"
    for key, text in zip(again, batch.texts[-len(again) :], strict=True):
        assert text.ids[text.pool_start :].tolist() == prepared.task_texts.text(key, NOTHING).ids.tolist()
    ends = [tuple(text.ids[text.pool_start :]) for text in batch.texts[: len(batch.labels)]]
    assert len(set(ends)) == len(ends), "a text came twice"
    numbers = {tuple(prepared.task_texts.text(row[0], NOTHING).ids): row[1] for row in prepared.rows[0]}
    assert [numbers[end] for end in ends] == batch.labels.tolist()
    assert next(batch for batch in found if batch.name == "next").labels is None


def test_parts_that_have_the_label_come_behind_their_texts(recipe: Any, prepared: Any, teacher: Any) -> None:
    batches = recipe("batches")
    stage = batches.Stage(20, taught_tokens=64, instructed=0.5, task_tokens=96)
    source = batches.MiniBatches(prepared, stage, 1, teacher)
    batch = next(source[step] for step in range(20) if source[step].name == "partly")
    bodies = [text.ids[text.pool_start : -1].tolist() for text in batch.texts]
    tree = prepared.tokenizer.encode("tree", add_special_tokens=False).ids
    wholes = [place for place in range(len(batch.labels)) if bodies[place][-1:] == tree]
    assert len(batch.parts[0]) >= 3
    assert set(batch.parts[0]) <= set(wholes)
    for whole, part in batch.parts.T:
        assert bodies[whole] == bodies[part] + tree
        assert batch.labels[whole] == batch.labels[part]
        assert part >= batch.parts[0].max()
    assert sum(map(len, bodies[: len(batch.labels)])) <= 96


def test_some_taught_texts_stand_behind_what_is_no_instruction(recipe: Any, prepared: Any, teacher: Any) -> None:
    batches = recipe("batches")
    stage = batches.Stage(1, taught_tokens=64, instructed=1.0)
    taught = batches.MiniBatches(prepared, stage, 1, teacher).taught
    rng = np.random.default_rng(0)
    bodies = {tuple(prepared.texts.own_ids(number)) for number in range(len(prepared.texts))}
    found = [taught.text(prepared.texts, 7, rng) for _ in range(200)]
    assert all(text.ids[text.pool_start : -1].tolist() == prepared.texts.own_ids(7).tolist() for text in found)
    strange = np.mean([tuple(text.ids[: text.pool_start]) in bodies for text in found])
    assert 0.2 < strange < 0.4


def test_prototypes_are_means_of_the_other_texts_of_a_label(recipe: Any) -> None:
    loss = recipe("prototypes").prototype_loss
    vectors = F.normalize(torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=1)
    labels = torch.tensor([4, 9, 4, 9, 9, 4, 2])
    expected = []
    for own in range(6):
        means = [
            F.normalize(sum(vectors[i] for i in range(7) if labels[i] == label and i != own), dim=0) for label in (4, 9)
        ]
        logits = torch.stack([mean @ vectors[own] for mean in [*means, vectors[6]]]) / 0.1
        expected.append(torch.logsumexp(logits, 0) - logits[int(labels[own] == 9)])
    assert torch.allclose(loss(vectors, labels, temperature=0.1), torch.stack(expected).mean())
    assert loss(vectors[:3], torch.arange(3), temperature=0.1) == 0


def test_lesson_is_what_bert_says_of_each_text_alone(prepared: Any, teacher: Any) -> None:
    texts = [prepared.texts.text(index, NOTHING).ids for index in range(70)]
    lesson = teacher(texts)
    assert lesson.ends.tolist() == np.cumsum([len(text) for text in texts]).tolist()
    turn, start = torch.from_numpy(prepared.rotation), 0
    for text, end, vector in zip(texts, lesson.ends, lesson.vectors, strict=True):
        ids = torch.tensor([teacher.own_ids(text)])
        assert ids[0, -1] == 4
        with torch.no_grad():
            states = teacher.bert(ids, output_hidden_states=True).hidden_states
        assert torch.allclose(vector, F.normalize((states[-1][0] @ turn).mean(0), dim=0), atol=1e-5)
        assert torch.allclose(lesson.states[1][start:end], states[1][0, 1:], atol=1e-5)
        assert torch.allclose(lesson.states[-1][start:end], states[-1][0, 1:] @ turn, atol=1e-5)
        start = end
    assert len(lesson.states) == 6


def test_vectors_are_turned_to_their_principal_axes(prepared: Any, teacher: Any) -> None:
    texts = [prepared.texts.text(index, NOTHING).ids for index in range(100)]
    size = teacher(texts).vectors.square().mean(0)
    assert (size.diff() <= 1e-3).all(), "the leading dimensions hold the most"


def test_a_finished_models_axes_are_found_by_its_vectors(
    recipe: Any, prepared: Any, teacher: Any, tmp_path: Path
) -> None:
    from anytask.checkpoint import load_checkpoint

    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(32, 32)))[0].astype(np.float32)
    texts = [prepared.texts.text(number, NOTHING) for number in range(100)]
    plain = recipe("teacher").Teacher(tiny_bert(), teacher.kept, cls=3)
    ids = [teacher.own_ids(text.ids) for text in texts]
    recipe("prepare").convert(plain.bert, ids, prepared.tokenizer, teacher.kept, turned, tmp_path / "start")
    model = load_checkpoint(tmp_path / "start")

    found = recipe("axes").axes_of(model, plain, texts)
    assert np.allclose(found.T @ found, np.eye(32), atol=1e-5)
    theirs, ours = plain.vectors([text.ids for text in texts]), recipe("axes").vectors_of(model, texts)
    with_its_own = (theirs @ found * ours).sum(1).mean()
    assert with_its_own > 0.9
    assert with_its_own >= (theirs @ turned * ours).sum(1).mean() - 1e-5
    assert with_its_own > (theirs @ prepared.rotation * ours).sum(1).mean() + 0.5


def test_each_token_is_compared_with_the_teachers_of_the_same_text(recipe: Any, prepared: Any, teacher: Any) -> None:
    batches, imitation = recipe("batches"), recipe("imitation")
    stage = batches.Stage(3, taught_tokens=64, instructed=0.5, task_tokens=32)
    batch = batches.MiniBatches(prepared, stage, 1, teacher)[1]
    order = list(np.random.default_rng(0).permutation(len(batch.texts)))
    first = len(batch.texts) - len(batch.lesson.ends)
    ours, theirs = imitation._rows(batch, order, first, batch.lesson)
    packed = np.concatenate([batch.texts[index].ids for index in order])
    taught = np.concatenate([text.ids[text.pool_start :] for text in batch.texts[first:]])
    assert packed[ours].tolist() == taught[theirs].tolist()
    assert len(set(theirs.tolist())) == len(taught)


@pytest.fixture
def trainer(recipe: Any, prepared: Any, teacher: Any, tmp_path: Path) -> Any:
    """Makes trainers of the converted teacher that write to the named folder."""
    from anytask.checkpoint import load_checkpoint
    from anytask.training.options import TrainingOptions
    from anytask.training.run import make_accelerator

    texts = [teacher.own_ids(prepared.texts.text(number, NOTHING).ids) for number in range(90)]
    recipe("prepare").convert(
        teacher.bert, texts, prepared.tokenizer, teacher.kept, prepared.rotation, tmp_path / "start"
    )
    batches = recipe("batches")

    def make(folder: str, steps: int = 12, task_tokens: int = 64) -> Any:
        options = TrainingOptions(learning_rate=3e-3, schedule="constant", chunk_tokens=1 << 20, save_every=4)
        stage = batches.Stage(steps, taught_tokens=128, instructed=0.5, task_tokens=task_tokens)
        source = batches.MiniBatches(prepared, stage, 1, teacher)
        start = load_checkpoint(tmp_path / "start")
        return recipe("imitation").ImitatingTrainer(
            start, options, source, make_accelerator(options, "cpu"), tmp_path / folder
        )

    return make


def test_imitation_brings_the_tokens_nearer_to_the_teachers(trainer: Any) -> None:
    run = trainer("run", steps=24, task_tokens=0)
    before = run.compute_gradient(run.source[0])[1]["layers"]
    run.optimizer.zero_grad()
    run.run()
    assert run.compute_gradient(run.source[0])[1]["layers"] < 0.9 * before


def test_the_loss_counts_how_far_texts_are_from_their_parts_that_have_the_label(trainer: Any) -> None:
    run = trainer("run")
    run.module.eval()  # no dropout
    batch = next(run.source[step] for step in range(20) if run.source[step].name == "partly")
    order, (chunk,) = run._chunks(batch)
    with torch.no_grad():
        vectors = run._embed(chunk)[np.argsort(order)]
    expected = np.mean([1 - float(vectors[whole] @ vectors[part]) for whole, part in batch.parts.T])
    loss, told = run.compute_gradient(batch)
    assert told["parts"] == pytest.approx(expected, abs=1e-5)
    assert loss - run.compute_gradient(replace(batch, parts=None))[0] == pytest.approx(expected, abs=1e-4)


def test_killed_training_goes_on_as_if_it_had_not_been(trainer: Any) -> None:
    whole, first = trainer("whole"), trainer("parts")
    whole.run()
    step = first._save

    def die() -> None:
        step()
        raise KeyboardInterrupt

    first._save = die
    with pytest.raises(KeyboardInterrupt):
        first.run()
    again = trainer("parts")
    again.run()
    assert again.progress.step == 12
    for name, weight in whole.module.state_dict().items():
        assert torch.equal(weight, again.module.state_dict()[name]), name


def test_a_model_is_trained_from_nothing_and_then_further(
    trainer: Any,
    recipe: Any,
    prepared: Any,
    teacher: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from anytask import Instructor

    trainer("converted")  # leaves `start`
    train, of_teacher = recipe("train"), recipe("teacher")
    monkeypatch.setattr(
        of_teacher.Teacher,
        "load",
        staticmethod(lambda kept, turn=None: of_teacher.Teacher(tiny_bert(), kept, turn, cls=3)),
    )
    monkeypatch.setattr(train, "teacher_folder", lambda: tmp_path)
    monkeypatch.setattr(train, "t5_tokenizer", lambda _: (prepared.tokenizer, teacher.kept))

    def run(*arguments: str) -> None:
        steps = ("--distil-steps", "2", "--instruct-steps", "2")
        places = ("--prepared", str(tmp_path), "--out", str(tmp_path / "model"))
        monkeypatch.setattr(sys, "argv", ["train.py", *places, *steps, *arguments])
        train.main()

    def vectors() -> Any:
        return Instructor.from_pretrained(tmp_path / "model" / "mini", device="cpu").encode(["the cat sat", "a tree"])

    run()
    first = vectors()
    (tmp_path / "model" / "mini").rename(tmp_path / "finished")
    run("--further", str(tmp_path / "finished"), "--share", "0")
    np.testing.assert_allclose(vectors(), first, atol=1e-2)
    log = (tmp_path / "model" / "further" / "log.csv").read_text("utf-8")
    run("--further", str(tmp_path / "finished"), "--share", "1")
    assert np.abs(vectors() - first).max() > 1e-3
    assert (tmp_path / "model" / "further" / "log.csv").read_text("utf-8") == log, "a finished stage is not run again"


def test_muon_takes_the_layers_matrices_and_adamw_the_rest(trainer: Any) -> None:
    run = trainer("run")
    names = {id(parameter): name for name, parameter in run.module.named_parameters()}
    muon, adamw = (
        {names[id(parameter)] for group in part.param_groups for parameter in group["params"]}
        for part in run.optimizer.optimizer.parts
    )
    assert {name.rsplit(".", 2)[-2] for name in muon} == {"qkv", "o", "wi", "wo", "dense"}
    assert {"encoder.embed_tokens.weight", "encoder.relative_attention_bias.weight"} < adamw
    assert len(muon) + len(adamw) == len(names)


def test_muon_takes_the_steps_of_torchs(recipe: Any) -> None:
    pytest.importorskip("torch", minversion="2.9")  # has Muon
    rng = torch.Generator().manual_seed(0)
    starts = [torch.randn(shape, generator=rng) for shape in ((24, 96), (96, 24), (24, 24))]
    ours, theirs = ([nn.Parameter(start.clone()) for start in starts] for _ in range(2))
    optimizers = (
        recipe("optimizer").Muon(ours, 1e-2),
        torch.optim.Muon(theirs, lr=1e-2, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=rng)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other, start in zip(ours, theirs, starts, strict=True):
        assert (one - other).norm() < 0.02 * (other - start).norm(), "torch's is multiplied in bfloat16"


def test_sentiments_cover_the_emotions_once(recipe: Any) -> None:
    emotions = [emotion for group in recipe("sentiment").EMOTIONS.values() for emotion in group.split()]
    assert len(emotions) == len(set(emotions)) == 28


def test_a_model_between_two_has_the_weighted_mean_of_their_weights(trainer: Any, recipe: Any) -> None:
    first, second = trainer("first").trained(), trainer("second").trained()
    with torch.no_grad():
        for module in (second.encoder, second.head):
            for weight in module.parameters():
                weight.add_(1.0)
    before = {name: weight.clone() for name, weight in first.encoder.state_dict().items()}
    found = recipe("averaging").between(first, second, 0.25)
    for name, weight in found.encoder.state_dict().items():
        assert torch.allclose(weight, before[name] + 0.25), name
        assert torch.equal(first.encoder.state_dict()[name], before[name]), "the first stays what it is"


def test_free_wordings_keep_what_the_instruction_says(recipe: Any) -> None:
    free = recipe("instructions").free_wordings
    wordings = free("Represent the medical question for retrieving answers: ")
    assert len(set(wordings)) == len(wordings) > 5
    assert all("etrieving answers" in wording and wording.endswith(" ") for wording in wordings)
    assert sum("edical question" in wording for wording in wordings) == len(wordings) - 1
    assert free("Find it: ") == ["Find it: "]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder of a few tasks, comments, examples and passages."""
    tasks = {
        "task1_snli_neutral_to_contradiction_text_modification": [
            ("Sentence 1: A dog runs. Sentence 2: A dog is red.", "A dog sleeps."),
        ],
        "task1340_msr_text_compression_compression": [
            ("Ann, who was tired, had met Bob in 1999 .", "Ann had met Bob ."),
            ("Ann had met Bob .", "Ann met Bob once ."),
        ],
        "task955_wiki_auto_style_transfer": [
            ("Bob is old .", "Bob , who is a farmer , is old ."),
        ],
        "task068_abductivenli_incorrect_answer_generation": [
            ("Beginning: Ann ran. Middle: Ann fell. Ending: Ann wept.", "Ann won."),
        ],
        "task040_qasc_question_generation": [
            ("Fact: acid helps digest fats.", "What helps digest fats?"),
        ],
        "task1326_qa_zre_question_generation_from_answer": [
            ("Context : Ann died in 1820 . \nAnswer : 1820", "When did Ann die?"),
        ],
        "task1327_qa_zre_answer_generation_from_question": [
            ("Context : Bob lived in Rome . \nQuestion : Where did Bob live?", "Rome"),
        ],
        "task1364_hans_answer_generation": [
            ("The judge by the door saw the boy .", "The boy saw the judge ."),
            ("The boy that the judge saw met the girl .", "The girl met the judge ."),
        ],
        "task927_yelp_negative_to_positive_style_transfer": [
            ("the tea was cold .", "the tea was lovely ."),
        ],
        "task1339_peixian_equity_evaluation_corpus_text_completion": [
            ("SENTENCE: Ann feels <blank>.\n EMOTION: joy", "Ann feels glad."),
            ("SENTENCE: Ann feels <blank>.\n EMOTION: anger", "Ann feels cross."),
        ],
        "task1342_amazon_us_reviews_title": [
            ("It arrived quite cold. What a lovely red door.", "A lovely case"),
        ],
        "task293_storycommonsense_emotion_text_generation": [
            ("Context: None \n Sentence: Ann was on cloud nine. \n Character: Ann", "glad"),
            ("Context: Ann ran. \n Sentence: Bob looked on. \n Character: Bob", "None"),
        ],
        "task749_glucose_reverse_cause_emotion_detection": [
            (
                "story: It rained. Bob missed the boat.\n selected sentence: Bob missed the boat.",
                "Bob misses the boat >Causes> Bob feel(s) cross",
            ),
        ],
    }
    first, second, third = (f"The {noun} has a red door and a wide roof." for noun in ("house", "barn", "mill"))
    passages = [{"text": f"{first} {second} {third}", "domain": domain} for domain in ("tech", "book")]
    judged = {
        "tech": "Keep the cold parts away. Keep the lovely parts here. The door is noted. Is it a lovely day?",
        "book": "A lovely sight was seen. A cold wind blew. The door was noted. Was it so cold? Was the door noted?",
    }
    passages += [{"text": text, "domain": domain} for domain, text in judged.items()]
    emotions = {"joy": "So lovely.", "anger": "How cross!", "neutral": "A red door.", "curiosity": "Where is it?"}
    files = {
        "superni_tasks": [
            {"name": name, "instances": [{"input": given, "output": output} for given, output in instances]}
            for name, instances in tasks.items()
        ],
        "text/plain_english": passages,
        "classification/goemotions": [
            *({"text": text, "label": label} for label, text in emotions.items()),
            {"text": "lovely, they say", "label": "anger"},
        ],
        "pairs/wikisplit": [
            {
                "query": "Ann met Bob in 1999 and left in 2001 .",
                "pos": "Ann met Bob in 1999 . She left in 2001 .",
            },
            {"query": "Ann met Bob and left .", "pos": "Ann met Bob at noon . Ann left at once ."},
        ],
        "pairs/wordnet_definitions": [
            {"query": "ace, top", "pos": "very lovely"},
            {"query": "the pits", "pos": "as cold and cross as can be"},
            {"query": "hinge", "pos": "part of a door"},
        ],
        "pairs/wordnet_examples": [{"pos": text} for text in ("a lovely door", "cold comfort", "noted")],
    }
    for name, rows in files.items():
        file = tmp_path / "data" / f"{name}.jsonl.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(file, "wt", encoding="utf-8") as target:
            target.writelines(json.dumps(row) + "\n" for row in rows)
    return tmp_path / "data"


def test_rewritten_pairs_have_the_relation_that_the_task_names(recipe: Any, data: Path) -> None:
    rows = list(recipe("relations").rewritten_relations(data))
    assert [label for _, label in rows] == ["neutral", "contradiction"]
    assert all("A dog runs." in text for text, _ in rows)
    assert "A dog is red." in rows[0][0]
    assert "A dog sleeps." in rows[1][0]


def test_a_passages_own_sentence_follows_from_it_and_the_next_does_not(recipe: Any, data: Path) -> None:
    rows = list(recipe("relations").passage_relations(data))
    of_houses = [(text, label) for text, label in rows if "barn" in text]
    assert [label for _, label in of_houses] == ["entailment", "contradiction", "neutral"] * 2
    for text, label in of_houses:
        assert ("mill" in text) == (label == "neutral")
        assert ("has not a red door" in text) == (label == "contradiction")


def test_a_half_follows_from_the_whole_and_not_from_the_other_half(recipe: Any, data: Path) -> None:
    rows = list(recipe("relations").split_relations(data))
    assert [label for _, label in rows] == ["entailment", "contradiction", "neutral"]
    whole = "Ann met Bob in 1999 and left in 2001 ."
    assert [text.count(whole) for text, _ in rows] == [1, 1, 0]
    halves = "Ann met Bob in 1999 .", "She left in 2001 ."
    assert all(half in rows[2][0] for half in halves)


def test_what_says_less_follows_from_what_says_more_and_not_the_other_way_round(recipe: Any, data: Path) -> None:
    rows = list(recipe("relations").shortened_relations(data))
    whole, short = "Ann, who was tired, had met Bob in 1999 .", "Ann had met Bob ."
    assert [label for _, label in rows] == ["entailment", "contradiction", "neutral"] * 2
    assert rows[0][0].index(whole) < rows[0][0].index(short)
    assert rows[2][0].index(short) < rows[2][0].index(whole)
    assert rows[3][0].index("farmer") < rows[3][0].index("Bob is old")
    assert "Bob is not old ." in rows[4][0]


def test_a_storys_middle_follows_from_it_but_not_from_what_is_around_it(recipe: Any, data: Path) -> None:
    rows = {label: text for text, label in recipe("relations").story_relations(data)}
    assert rows["entailment"].index("Ann ran. Ann fell. Ann wept.") < rows["entailment"].rindex("Ann fell.")
    assert "Ann won." in rows["contradiction"]
    assert rows["neutral"].index("Ann ran. Ann wept.") < rows["neutral"].index("Ann fell.")


def test_swapped_roles_do_not_follow(recipe: Any, data: Path) -> None:
    assert [(text.splitlines()[-1], label) for text, label in recipe("relations").role_relations(data)] == [
        ("Hypothesis: The judge saw the boy .", "entailment"),
        ("The judge by the door saw the boy . The boy saw the judge .", "neutral"),
    ], "the second sentence's subject isn't whom the swapped one names"


def test_an_alteration_changes_one_place(recipe: Any) -> None:
    alteration = recipe("relations").Alteration(["We saw Ann at 12", "They met Bob at 7"], random.Random(0))
    found = {alteration("They met Bob at 7") for _ in range(50)}
    assert found == {"They met Ann at 7", "They met Bob at 12"}
    assert alteration("it was so") == "it was not so"
    assert alteration("It was not so") is None


def test_questions_come_with_what_they_were_asked_of(recipe: Any, data: Path) -> None:
    questions = recipe("questions")
    assert list(questions.questions(data, questions.OF_SENTENCES)) == [
        ("What helps digest fats?", "acid helps digest fats.", None),
        ("When did Ann die?", "Ann died in 1820 .", None),
        ("Where did Bob live?", "Bob lived in Rome .", None),
    ]


def test_praise_complaints_and_feelings_keep_their_sentiment(recipe: Any, data: Path) -> None:
    rows = recipe("sentiment").labelled_sentences(data)
    assert [(row.text, row.sentiment, row.source) for row in rows] == [
        ("the tea was cold .", "negative", "reviews"),
        ("the tea was lovely .", "positive", "reviews"),
        ("Ann feels glad.", "positive", "feelings"),
        ("Ann feels cross.", "negative", "feelings"),
    ]


@pytest.fixture
def embed_by_words() -> Any:
    """Vectors that count the words of three sentiments."""
    words = [("lovely", "glad"), ("cold", "cross"), ("door", "noted")]

    def embed(texts: Any) -> Any:
        counts = [[sum(word in text for word in group) for group in words] for text in texts]
        return np.array(counts, dtype=np.float32)

    return embed


def test_the_clearest_sentences_of_each_sentiment_are_taken_from_every_source(
    recipe: Any, data: Path, embed_by_words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentiment = recipe("sentiment")
    monkeypatch.setattr(sentiment, "CLEAREST", 1)
    rows = sentiment.judged_sentences(data, embed_by_words)
    rows = [row for row in rows if row.source != "mixed"]
    sentiments = {row.text: row.sentiment for row in rows}
    assert len(sentiments) == len(rows)
    assert "Where is it?" not in {row.text for row in rows}
    found = {(row.source, row.sentiment): row.text for row in rows}
    assert set(found) > {
        (source, name)
        for source in ("terms", "examples", "prose", "manuals", "questions")
        for name in ("positive", "negative", "neutral")
    }
    assert not {(source, "neutral") for source in ("reviews", "titles", "stories")} & set(found)
    assert found["titles", "positive"] == "A lovely case"
    assert found["prose", "positive"] == "A lovely sight was seen."
    assert found["manuals", "negative"] == "Keep the cold parts away."
    assert found["questions", "neutral"] == "Was the door noted?"
    assert "lovely, they say" not in sentiments, "its label is doubtful"


def test_a_neutral_text_beside_another_leaves_its_sentiment(recipe: Any) -> None:
    judged = recipe("sentiment").Judged
    rows = [judged("Lovely!", "positive", "notes"), judged("Bad.", "negative", "notes")]
    rows += [judged("It is red.", "neutral", "notes"), judged("On the left.", "neutral", "manuals")]
    found = list(recipe("sentiment").mixed(rows))
    plain = {(row.text, row.sentiment) for row in found if not set(row.text) & set(",;-") and " and " not in row.text}
    assert plain == {
        (text, sentiment)
        for one, sentiment in (("Lovely!", "positive"), ("Bad.", "negative"), ("It is red.", "neutral"))
        for text in (f"{one} On the left.", f"On the left. {one}")
    }, "of two sources"
    assert {row.text for row in found} > {"Lovely, On the left.", "On the left and Bad.", "It is red - On the left."}
    assert {row.source for row in found} == {"mixed"}
    assert all((row.part, row.sentiment) in {(told.text, told.sentiment) for told in rows} for row in found)
    assert all(row.part.rstrip(".!") in row.text for row in found)


def test_a_text_has_the_sentiment_of_what_it_is_said_to_mean(
    recipe: Any, data: Path, embed_by_words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentiment = recipe("sentiment")
    monkeypatch.setattr(sentiment, "CLEAREST", 1)
    found = {row.text: row.sentiment for row in sentiment.judged_sentences(data, embed_by_words)}
    assert found["the pits"] == "negative"
    assert found["ace, top"] == "positive"
    assert found["hinge"] == "neutral"
    assert list(sentiment.stories(data)) == [("Ann was on cloud nine.", "glad"), ("Bob missed the boat.", "cross")]


@pytest.mark.parametrize(
    ("objective", "is_left_out"),
    [
        ("retrieving its answer", True),
        ("finding the short answer", True),
        ("computing the answer", True),
        ("finding the question that it answers", True),
        ("retrieving answers", False),
        ("retrieving its sub-questions", False),
        ("retrieving documents that help answer", False),
    ],
)
def test_tasks_of_pairs_that_lead_to_bare_answers_or_other_questions_are_left_out(
    recipe: Any, objective: str, is_left_out: bool
) -> None:
    found = recipe("tasks").QUESTIONS_AND_ANSWERS.search(f"Represent the factoid question for {objective}: ")
    assert bool(found) == is_left_out


@pytest.mark.usefixtures("prepared")
def test_prepared_tasks_are_described_in_json(tmp_path: Path) -> None:
    told = json.loads((tmp_path / "tasks.json").read_text("utf-8"))
    assert [task["name"] for task in told] == ["parity", "next", "partly"]
    assert [task["labelled"] for task in told] == [True, False, True]
