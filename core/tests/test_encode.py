"""The forms in which texts and instructions may be given, and the forms in which vectors come back."""

from __future__ import annotations

import enum
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anytask import DEFAULT_DOCUMENT_INSTRUCTION, DEFAULT_QUERY_INSTRUCTION, Instruction, Instructor

MakeCheckpoint = Callable[..., Path]

QUERY = "Represent the question for retrieval: "
TITLE = Instruction("title", domain="news", objective="clustering")


@pytest.fixture(scope="module")
def folder(make_checkpoint: MakeCheckpoint) -> Path:
    return make_checkpoint()


@pytest.fixture(scope="module")
def model(folder: Path) -> Instructor:
    return Instructor.from_pretrained(folder, device="cpu")


def assert_same(left: Any, right: Any) -> None:
    assert left.shape == right.shape
    np.testing.assert_allclose(left, right, atol=1e-5)


class Task(str, enum.Enum):  # noqa: UP042
    """Its members print as "Task.SEARCH", unlike those of a StrEnum."""

    SEARCH = QUERY


class TestCallingForms:
    def test_one_string_gives_one_vector(self, model: Instructor) -> None:
        vector = model.encode("names refer to objects")
        assert vector.shape == (model.dimension,)
        assert vector.dtype == np.float32
        assert_same(vector, model.encode(["names refer to objects"])[0])
        assert_same(model.encode("names", QUERY), model.encode(["names"], QUERY)[0])
        assert model.encode(np.str_("names")).shape == (model.dimension,)

    @pytest.mark.parametrize(
        "form",
        [
            tuple,
            np.array,
            lambda texts: np.array(texts, dtype=object),
            iter,
            lambda texts: dict.fromkeys(texts).keys(),
            lambda texts: [np.str_(text) for text in texts],
        ],
    )
    def test_any_sequence_of_strings(self, model: Instructor, form: Callable[[list[str]], Any]) -> None:
        texts = ["names refer to objects", "a class body", ""]
        assert_same(model.encode(form(texts), QUERY), model.encode(texts, QUERY))

    @pytest.mark.parametrize("form", [list, tuple, np.array])
    @pytest.mark.parametrize("pair", [list, tuple])
    def test_pairs(self, model: Instructor, form: Callable[[Any], Any], pair: Callable[[Any], Any]) -> None:
        pairs = [(QUERY, "how are names bound?"), (str(TITLE), "a class body")]
        expected = np.stack([model.encode(text, instruction) for instruction, text in pairs])
        assert_same(model.encode(form([pair(item) for item in pairs])), expected)

    def test_pairs_and_plain_texts_may_be_mixed(self, model: Instructor) -> None:
        vectors = model.encode(["a class body", [QUERY, "a class body"], (TITLE, "a class body")])
        for vector, instruction in zip(vectors, [None, QUERY, TITLE], strict=True):
            assert_same(vector, model.encode("a class body", instruction))

    def test_one_instruction_per_text(self, model: Instructor) -> None:
        texts = ["a class body", "names", "how are names bound?"]
        instructions: list[Any] = ["", TITLE, QUERY]
        vectors = model.encode(texts, instructions)
        for vector, text, instruction in zip(vectors, texts, instructions, strict=True):
            assert_same(vector, model.encode(text, instruction))
        array: Any = np.array(["", str(TITLE), QUERY])
        assert_same(model.encode(texts, array), vectors)
        assert_same(model.encode("names", [TITLE]), vectors[1])

    def test_the_order_is_kept(self, model: Instructor, sentences: list[str]) -> None:
        texts = sentences[:60]
        vectors = model.encode(texts, batch_tokens=300)
        assert_same(model.encode(texts[::-1])[::-1], vectors)
        assert_same(np.stack([model.encode(text) for text in texts[::7]]), vectors[::7])

    def test_instructions_change_the_vector_and_an_empty_one_is_none(self, model: Instructor) -> None:
        plain, asked, titled = (model.encode("names", instruction) for instruction in (None, QUERY, TITLE))
        assert_same(model.encode("names", ""), plain)
        assert plain @ asked < 0.999
        assert titled @ asked < 0.999

    def test_the_value_of_an_enumeration_counts(self, model: Instructor) -> None:
        assert_same(model.encode("names", Task.SEARCH), model.encode("names", QUERY))
        assert_same(model.encode(["names"], [Task.SEARCH]), model.encode(["names"], QUERY))
        assert_same(model.encode([Task.SEARCH]), model.encode([QUERY]))

    def test_the_callers_lists_are_left_alone(self, model: Instructor) -> None:
        texts, instructions = [[QUERY, " names "]], [QUERY]
        model.encode(texts)
        model.encode(["x"], instructions)
        assert texts == [[QUERY, " names "]]
        assert instructions == [QUERY]


class TestOutput:
    def test_unit_length(self, model: Instructor) -> None:
        np.testing.assert_allclose(np.linalg.norm(model.encode(["names", "a class"]), axis=1), 1, atol=1e-6)

    def test_without_normalisation(self, model: Instructor) -> None:
        raw = model.encode(["names", "a class"], normalize=False)
        lengths = np.linalg.norm(raw, axis=1, keepdims=True)
        assert (np.abs(lengths - 1) > 1e-3).all()
        assert_same(raw / lengths, model.encode(["names", "a class"]))

    @pytest.mark.parametrize("dimensions", [1, 7, 24])
    def test_leading_dimensions(self, model: Instructor, dimensions: int) -> None:
        full = model.encode(["names", "a class"], normalize=False)
        cut = model.encode(["names", "a class"], truncate_dim=dimensions)
        assert_same(cut, full[:, :dimensions] / np.linalg.norm(full[:, :dimensions], axis=1, keepdims=True))
        assert_same(model.encode(["names", "a class"], truncate_dim=dimensions, normalize=False), full[:, :dimensions])
        assert cut.flags["C_CONTIGUOUS"]

    @pytest.mark.parametrize(("precision", "dtype", "width"), [("int8", np.int8, 20), ("binary", np.uint8, 3)])
    def test_precision(self, model: Instructor, precision: Any, dtype: type, width: int) -> None:
        exact = model.encode(["names", "a class"], truncate_dim=20)
        compact = model.encode(["names", "a class"], truncate_dim=20, precision=precision)
        assert compact.dtype == dtype
        assert compact.shape == (2, width)
        if precision == "int8":
            assert model.similarity(compact, exact).diagonal().min() > 0.999
        else:
            assert np.array_equal(np.unpackbits(compact, axis=1)[:, :20], exact > 0)
        assert model.encode("names", truncate_dim=20, precision=precision).shape == (width,)

    @pytest.mark.parametrize(
        ("precision", "dtype"), [("float32", torch.float32), ("int8", torch.int8), ("binary", torch.uint8)]
    )
    def test_tensors(self, model: Instructor, precision: Any, dtype: torch.dtype) -> None:
        tensor = model.encode(["names"], QUERY, as_tensor=True, precision=precision)
        assert isinstance(tensor, torch.Tensor)
        assert tensor.dtype == dtype
        assert tensor.device.type == "cpu"
        assert_same(tensor.numpy(), model.encode(["names"], QUERY, precision=precision))
        assert model.encode("names", as_tensor=True).shape == (model.dimension,)

    def test_tensors_take_part_in_training(self, model: Instructor) -> None:
        tensor = model.encode(["names", "a class"], as_tensor=True, normalize=False)
        layer = torch.nn.Linear(model.dimension, 2)
        layer(tensor).sum().backward()
        tensor += 1
        assert layer.weight.grad is not None

    def test_progress_goes_to_standard_error(self, model: Instructor, monkeypatch: pytest.MonkeyPatch) -> None:
        output, errors = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "stdout", output)
        monkeypatch.setattr(sys, "stderr", errors)
        quiet = model.encode(["names"] * 5)
        assert errors.getvalue() == ""
        assert_same(model.encode(["names"] * 5, show_progress=True, batch_tokens=4), quiet)
        assert "embedding" in errors.getvalue()
        assert "5/5" in errors.getvalue()
        assert output.getvalue() == ""
        assert model.encode([], show_progress=True).shape == (0, model.dimension)

    @pytest.mark.parametrize("batch_tokens", [1, 17, 100_000])
    def test_the_batch_size_does_not_matter(self, model: Instructor, sentences: list[str], batch_tokens: int) -> None:
        assert_same(model.encode(sentences[:30], batch_tokens=batch_tokens), model.encode(sentences[:30]))


class TestSides:
    def test_the_projects_defaults(self, model: Instructor) -> None:
        assert model.query_instruction == DEFAULT_QUERY_INSTRUCTION
        assert model.document_instruction == DEFAULT_DOCUMENT_INSTRUCTION
        assert_same(model.encode_query("names"), model.encode("names", DEFAULT_QUERY_INSTRUCTION))
        assert_same(model.encode_document(["names"]), model.encode(["names"], DEFAULT_DOCUMENT_INSTRUCTION))

    @pytest.mark.parametrize("name", ["document", "passage", "corpus"])
    def test_the_checkpoints_prompts(self, make_checkpoint: MakeCheckpoint, name: str) -> None:
        prompts = {"query": "Represent the test question: ", name: "Represent the test text: "}
        model = Instructor.from_pretrained(make_checkpoint(prompts=prompts))
        assert (model.query_instruction, model.document_instruction) == tuple(prompts.values())
        assert_same(model.encode_query("names"), model.encode("names", prompts["query"]))
        assert_same(model.encode_document("names"), model.encode("names", prompts[name]))

    def test_an_instruction_of_the_call_comes_first(self, model: Instructor) -> None:
        for encode in (model.encode_query, model.encode_document):
            assert_same(encode("names", TITLE), model.encode("names", TITLE))
            assert_same(encode(["names"], instruction=QUERY), model.encode(["names"], QUERY))
            assert_same(encode("names", ""), model.encode("names"))

    def test_options_are_passed_on(self, model: Instructor) -> None:
        for encode in (model.encode_query, model.encode_document):
            assert encode(["names"], truncate_dim=8, precision="int8", as_tensor=True).dtype == torch.int8
            with pytest.raises(TypeError, match="batch_size"):
                encode(["names"], batch_size=2)

    async def test_the_asynchronous_forms(self, model: Instructor) -> None:
        assert_same(await model.aencode_query(["names"]), model.encode_query(["names"]))
        assert_same(await model.aencode_document("names", TITLE), model.encode("names", TITLE))
        assert_same(await model.aencode_query("names", ""), model.encode("names"))
        options: dict[str, Any] = {"truncate_dim": 8, "normalize": False, "batch_tokens": 5}
        assert_same(await model.aencode_query("names", **options), model.encode_query("names", **options))
        tensor = await model.aencode_document(["names"], precision="binary", as_tensor=True)
        assert torch.equal(tensor, model.encode_document(["names"], precision="binary", as_tensor=True))


class TestSimilarity:
    def test_cosines(self, model: Instructor) -> None:
        rng = np.random.default_rng(0)
        a, b = rng.standard_normal((3, 5)).astype(np.float32), rng.standard_normal((4, 5)).astype(np.float32)
        expected = [[np.dot(x, y) / np.linalg.norm(x) / np.linalg.norm(y) for y in b] for x in a]
        cosines = model.similarity(a, b)
        assert isinstance(cosines, np.ndarray)
        np.testing.assert_allclose(cosines, expected, atol=1e-6)
        assert_same(model.similarity(a[0], b), cosines[:1])
        assert_same(model.similarity(a, b[1]), cosines[:, 1:2])
        assert model.similarity(a[0], b[0]).shape == (1, 1)
        assert model.similarity(a[:0], b).shape == (0, 4)

    @pytest.mark.parametrize("form", [torch.from_numpy, lambda rows: torch.from_numpy(rows).double()])
    def test_tensors_give_a_tensor(self, model: Instructor, form: Callable[[Any], torch.Tensor]) -> None:
        rows = np.eye(3, dtype=np.float32)
        for cosines in (model.similarity(form(rows), rows), model.similarity(rows, form(rows))):
            assert isinstance(cosines, torch.Tensor)
            assert torch.equal(cosines, torch.eye(3))

    def test_lists_as_frameworks_store_them(self, model: Instructor) -> None:
        vectors = model.encode(["names", "a class"])
        assert_same(model.similarity(vectors.tolist(), vectors[0].tolist()), model.similarity(vectors, vectors[0]))

    def test_int8(self, model: Instructor) -> None:
        exact, compact = (model.encode(["names", "a class"], precision=precision) for precision in ("float32", "int8"))
        np.testing.assert_allclose(model.similarity(compact, compact), exact @ exact.T, atol=0.01)

    def test_what_has_no_cosine(self, model: Instructor) -> None:
        with pytest.raises(ValueError, match="4 and 5 dimensions"):
            model.similarity(np.ones((2, 4)), np.ones(5))
        binary = model.encode(["names"], precision="binary")
        with pytest.raises(ValueError, match="Hamming"):
            model.similarity(binary, binary)


class TestModel:
    def test_what_it_tells_of_itself(self, model: Instructor, folder: Path) -> None:
        assert repr(model) == f"Instructor('{folder}', dimension=24, device='cpu', dtype='float32')"
        assert (model.dimension, model.max_length, str(model.device)) == (24, 512, "cpu")
        assert model.dtype == torch.float32

    def test_settings(self, folder: Path) -> None:
        model = Instructor.from_pretrained(str(folder), device=torch.device("cpu"), dtype=torch.bfloat16, max_length=64)
        assert (model.max_length, model.dtype) == (64, torch.bfloat16)
        assert "bfloat16" in repr(model)

    @pytest.mark.parametrize("dtype", ["float64", "half", torch.float64])
    def test_unknown_dtype(self, dtype: Any) -> None:
        with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16, float16"):
            Instructor.from_pretrained("no/such-model", dtype=dtype)

    @pytest.mark.parametrize("device", ["gpu", "cuda:99", "cpu:"])
    def test_a_device_that_is_not_there(self, folder: Path, device: str) -> None:
        with pytest.raises(ValueError, match=f"device '{device}', expected one such as 'cpu'"):
            Instructor.from_pretrained(folder, device=device)

    @pytest.mark.parametrize("max_length", [-1, 0, 1])
    def test_no_room_for_a_token(self, folder: Path, max_length: int) -> None:
        with pytest.raises(ValueError, match=f"max_length .* got {max_length}"):
            Instructor.from_pretrained(folder, max_length=max_length)

    def test_the_original_constructor(self, model: Instructor, folder: Path) -> None:
        original = Instructor(str(folder), device="cpu")
        assert repr(original) == repr(model)
        assert_same(original.encode([[QUERY, "names"]]), model.encode([[QUERY, "names"]]))
        with pytest.raises(TypeError, match="cache_folder"):
            Instructor(folder, cache_folder=".")


@pytest.fixture(scope="module")
def mini() -> Instructor:
    return Instructor("mini")


class TestOriginalPackage:
    """The published package's calling forms, on the bundled model."""

    def test_one_customised_embedding(self, mini: Instructor) -> None:
        sentence = "A telescope that folds itself into a suitcase"
        instruction = "Represent the Science title:"
        embeddings = mini.encode([[instruction, sentence]])
        assert embeddings.shape == (1, mini.dimension)
        np.testing.assert_allclose(np.linalg.norm(embeddings), 1, atol=1e-5)

    def test_similarity_of_two_groups(self, mini: Instructor) -> None:
        from sklearn.metrics.pairwise import cosine_similarity

        sentences_a = [
            ["Represent the Science sentence: ", "Light bends as it passes a heavy star"],
            ["Represent the Financial statement: ", "The central bank raised its rate by half a point"],
        ]
        sentences_b = [
            ["Represent the Science sentence: ", "Light bends as it passes a heavy star"],
            ["Represent the Financial statement: ", "Shares of the railway fell after the report"],
        ]
        similarities = cosine_similarity(mini.encode(sentences_a), mini.encode(sentences_b))
        assert similarities.shape == (2, 2)
        assert similarities[0].argmax() == 0
        assert similarities[0, 0] == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(
            similarities, mini.similarity(mini.encode(sentences_a), mini.encode(sentences_b)), atol=1e-5
        )

    def test_retrieval(self, mini: Instructor) -> None:
        from sklearn.metrics.pairwise import cosine_similarity

        instruction = "Represent the Wikipedia document for retrieval: "
        passages = [
            "Bees tell each other by a dance where the flowers are.",
            "A lock lifts a boat from one level of a canal to the next.",
            "Bread rises because yeast turns sugar into gas.",
        ]
        query = [["Represent the Wikipedia document for retrieval: ", passages[1]]]
        corpus = [[instruction, passage] for passage in passages]
        similarities = cosine_similarity(mini.encode(query), mini.encode(corpus))
        assert np.argmax(similarities) == 1

    def test_clustering(self, mini: Instructor) -> None:
        import sklearn.cluster

        instruction = "Represent the Medicine sentence for clustering: "
        texts = ["The patient has a fever", "The engine of the lorry is broken"]
        sentences = [[instruction, text] for text in texts for _ in range(3)]
        embeddings = mini.encode(sentences)
        clustering_model = sklearn.cluster.MiniBatchKMeans(n_clusters=2, n_init=10, random_state=0)
        clustering_model.fit(embeddings)
        labels = clustering_model.labels_
        assert len(set(labels[:3])) == len(set(labels[3:])) == 1
        assert labels[0] != labels[3]
