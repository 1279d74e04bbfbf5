"""What `encode` and `aencode` do with input that is empty, wrong, too long or hostile, and when arithmetic fails."""

from __future__ import annotations

import asyncio
import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from anytask import Instruction, Instructor
from anytask.encoder import LengthGroup, T5Encoder

MakeCheckpoint = Callable[..., Path]
Encode = Callable[..., Any]

INSTRUCTION = "Represent the statement: "


def encoder_of(model: Instructor, call: str) -> Encode:
    """`encode` or `aencode` of a model, both as plain functions."""
    if call == "encode":
        return model.encode
    return lambda *args, **options: asyncio.run(model.aencode(*args, **options))


@pytest.fixture(params=["encode", "aencode"])
def call(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint: MakeCheckpoint) -> Path:
    return make_checkpoint(max_length=32)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Instructor:
    return Instructor.from_pretrained(checkpoint, device="cpu")


@pytest.fixture
def encode(model: Instructor, call: str) -> Encode:
    return encoder_of(model, call)


def assert_unit(vectors: Any) -> None:
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, atol=1e-5)


class TestEmpty:
    @pytest.mark.parametrize("nothing", [[], (), np.array([], dtype=str), iter([])])
    @pytest.mark.parametrize("instruction", [None, INSTRUCTION, Instruction("text"), []])
    def test_no_texts(self, encode: Encode, model: Instructor, nothing: Any, instruction: Any) -> None:
        vectors = encode(nothing, instruction)
        assert vectors.shape == (0, model.dimension)
        assert vectors.dtype == np.float32

    @pytest.mark.parametrize(
        ("options", "shape", "dtype"),
        [
            ({"truncate_dim": 10}, (0, 10), np.float32),
            ({"precision": "int8"}, (0, 24), np.int8),
            ({"precision": "binary"}, (0, 3), np.uint8),
            ({"normalize": False}, (0, 24), np.float32),
        ],
    )
    def test_no_texts_in_every_form(self, encode: Encode, options: Any, shape: Any, dtype: Any) -> None:
        vectors = encode([], **options)
        assert vectors.shape == shape
        assert vectors.dtype == dtype
        assert encode([], as_tensor=True, **options).shape == shape

    @pytest.mark.parametrize("blank", ["", " ", "\n\t\r", "\u00a0\u2003"])
    @pytest.mark.parametrize("instruction", [None, INSTRUCTION, "   "])
    def test_blank_texts_pool_the_end_token(self, encode: Encode, blank: str, instruction: str | None) -> None:
        vectors = encode([blank, "", "a word"], instruction)
        assert_unit(vectors)
        np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
        assert not np.allclose(vectors[0], vectors[2], atol=1e-2)
        assert_unit(encode(blank, instruction))

    def test_the_instruction_of_a_blank_text_still_counts(self, encode: Encode) -> None:
        assert not np.allclose(encode(""), encode("", INSTRUCTION), atol=1e-2)


class TestTypes:
    @pytest.mark.parametrize(
        ("wrong", "name"),
        [
            (None, "None"),
            (3, "int"),
            (2.5, "float"),
            (float("nan"), "float"),
            (b"bytes", "bytes"),
            (bytearray(b"x"), "bytearray"),
            ({"text": "x"}, "dict"),
            (Path("x"), type(Path()).__name__),
            (Instruction("text"), "Instruction"),
        ],
    )
    def test_an_item_is_named_by_index_and_type(self, encode: Encode, wrong: Any, name: str) -> None:
        with pytest.raises(TypeError, match=rf"^text 2 must be a string, got {name}$"):
            encode(["a", "b", wrong, "c"])
        with pytest.raises(TypeError, match=rf"^text 1 must be a string, got {name}$"):
            encode([("i", "a"), ("i", wrong)])
        if not isinstance(wrong, Instruction):
            with pytest.raises(TypeError, match=rf"^the instruction of text 0 must be a string, got {name}$"):
                encode([[wrong, "a"]])
            with pytest.raises(TypeError, match=rf"^instruction 1 must be a string, got {name}$"):
                encode(["a", "b"], ["i", wrong])

    @pytest.mark.parametrize("wrong", [None, 3, b"bytes", {"text": "x"}, np.array("x"), object()])
    def test_the_whole_argument(self, encode: Encode, wrong: Any) -> None:
        name = "None" if wrong is None else type(wrong).__name__
        with pytest.raises(TypeError, match=rf"^texts must be a string or a list .*, got {name}$"):
            encode(wrong)

    @pytest.mark.parametrize("wrong", [3, b"bytes", {"i": "x"}])
    def test_the_whole_instruction(self, encode: Encode, wrong: Any) -> None:
        with pytest.raises(TypeError, match=rf"^instruction must be a string, .*, got {type(wrong).__name__}$"):
            encode(["a"], wrong)

    def test_numbers_in_an_array(self, encode: Encode) -> None:
        with pytest.raises(TypeError, match="text 0 must be a string, got float"):
            encode(np.zeros(3))

    @pytest.mark.parametrize("wrong", [[], ["i"], ("i", "a", "b")])
    def test_pairs_of_another_length(self, encode: Encode, wrong: Any) -> None:
        with pytest.raises(ValueError, match=rf"^text 1 is a sequence of {len(wrong)}, expected the pair"):
            encode(["a", wrong])

    def test_pairs_and_an_instruction(self, encode: Encode, model: Instructor) -> None:
        with pytest.raises(ValueError, match="text 1 brings its own instruction"):
            encode(["a", ("i", "b")], INSTRUCTION)
        with pytest.raises(ValueError, match="encode_query and encode_document"):
            model.encode_query([("i", "b")])

    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_another_number_of_instructions(self, encode: Encode, count: int) -> None:
        with pytest.raises(ValueError, match=f"got {count} instructions for 2 texts"):
            encode(["a", "b"], [INSTRUCTION] * count)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"truncate_dim": 0}, "truncate_dim must be from 1 to the model's dimension 24, got 0"),
            ({"truncate_dim": 25}, "dimension 24, got 25"),
            ({"precision": "int4"}, "precision must be one of float32, float16, int8, binary, got 'int4'"),
            ({"on_long": "ignore"}, "on_long must be one of truncate, error, got 'ignore'"),
            ({"batch_tokens": 0}, "batch_tokens must be at least 1, got 0"),
        ],
    )
    def test_options(self, encode: Encode, options: Any, message: str) -> None:
        for texts in (["a"], []):
            with pytest.raises(ValueError, match=message):
                encode(texts, **options)


LONG = "the statement raises an exception when the sequence is empty " * 20


class TestTooLong:
    def test_one_warning_per_call_with_the_count(self, encode: Encode) -> None:
        with pytest.warns(
            UserWarning, match="2 of 3 texts have more tokens with their instruction than max_length 32"
        ) as caught:
            vectors = encode([LONG, "short", LONG + "more"], INSTRUCTION)
        assert len(caught) == 1
        assert_unit(vectors)

    def test_texts_that_fit_give_no_warning(self, encode: Encode) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            encode(["short", ""], INSTRUCTION)

    def test_the_warning_points_to_the_callers_line(self, model: Instructor) -> None:
        def line_of_warning(call: Callable[[], Any]) -> int:
            with pytest.warns(UserWarning, match="1 of 1 texts") as caught:
                call()
            assert [warning.filename for warning in caught] == [__file__]
            return caught[0].lineno

        async def run(method: Callable[..., Any]) -> None:
            await method([LONG])

        here = inspect.currentframe()
        assert here is not None
        method: Callable[..., Any]
        for method in (model.encode, model.encode_query, model.encode_document):
            assert line_of_warning(lambda: method([LONG])) == here.f_lineno  # noqa: B023
        awaited = inspect.getsourcelines(run)[1] + 1
        for method in (model.aencode, model.aencode_query, model.aencode_document):
            assert line_of_warning(lambda: asyncio.run(run(method))) == awaited  # noqa: B023
        assert line_of_warning(lambda: asyncio.run(model.aencode([LONG]))) == here.f_lineno

    def test_the_tail_is_cut_and_the_instruction_kept(self, encode: Encode) -> None:
        with pytest.warns(UserWarning, match="2 of 2"):
            vectors = encode([LONG + "one end", LONG + "or another"], INSTRUCTION)
        np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
        with pytest.warns(UserWarning, match="1 of 1"):
            assert not np.allclose(vectors[0], encode(LONG, "Represent the error: "), atol=1e-2)

    def test_error_on_request(self, encode: Encode) -> None:
        with pytest.raises(ValueError, match="text 1 has more tokens with its instruction than max_length 32"):
            encode(["short", LONG], INSTRUCTION, on_long="error")
        assert_unit(encode(["short"], INSTRUCTION, on_long="error"))

    @pytest.mark.filterwarnings("error")
    def test_an_instruction_without_room_names_both_lengths(self, encode: Encode, model: Instructor) -> None:
        words = model._tokenizer.tokenizer.encode(LONG, add_special_tokens=False).ids
        with pytest.raises(ValueError, match=rf"instruction has {len(words)} tokens, .* max_length 32"):
            encode(["a", "b"], ["", LONG])
        with pytest.raises(ValueError, match="shorten it or load the model with a larger max_length"):
            encode([(LONG, "a")])

    def test_the_longest_instruction_that_leaves_room(self, checkpoint: Path, call: str) -> None:
        ids = Instructor.from_pretrained(checkpoint)._tokenizer.instruction_tokens(INSTRUCTION)
        encode = encoder_of(Instructor.from_pretrained(checkpoint, max_length=len(ids) + 2), call)
        with pytest.warns(UserWarning, match="1 of 2 texts"):
            assert_unit(encode(["the statement", ""], INSTRUCTION))
        encode = encoder_of(Instructor.from_pretrained(checkpoint, max_length=len(ids) + 1), call)
        with pytest.raises(ValueError, match=rf"{len(ids)} tokens, .* max_length {len(ids) + 1}"):
            encode("a", INSTRUCTION)


class TestCharacters:
    @pytest.mark.parametrize("surrogate", ["\ud800", "before \udfff after", "\ude00\ud83d"])
    def test_lone_surrogates_are_named_by_index(self, encode: Encode, surrogate: str) -> None:
        with pytest.raises(ValueError, match=r"text 1 holds U\+D[89A-F][0-9A-F]{2}"):
            encode(["fine", surrogate, "fine"], INSTRUCTION)

    def test_lone_surrogates_in_an_instruction(self, encode: Encode) -> None:
        with pytest.raises(ValueError, match=r"instruction.*U\+D800"):
            encode(["fine", "fine"], ["fine", "Represent the \ud800: "])

    @pytest.mark.parametrize(
        "text",
        [
            "nul \0 inside",
            "\0",
            "שלום עולם",
            "\u202eright to left override\u202c",
            "👩‍👩‍👧‍👦 family 🏳️‍🌈",
            "e\u0301" * 5,
            "\ufeffbyte order mark",
            "\U0010ffff",
            "</s> <pad> <unk> <extra_id_0>",
            "\u200b\u200d",
        ],
    )
    def test_any_other_character_is_embedded(self, encode: Encode, text: str) -> None:
        vectors = encode(["fine", text], INSTRUCTION)
        assert_unit(vectors)
        np.testing.assert_allclose(vectors[0], encode("fine", INSTRUCTION), atol=1e-5)

    @pytest.mark.filterwarnings("ignore:1 of 2 texts")
    @pytest.mark.parametrize("unit", ["a", "word ", " "])
    def test_ten_megabytes(self, encode: Encode, unit: str) -> None:
        assert_unit(encode(["fine", unit * (10_000_000 // len(unit))], INSTRUCTION))

    @pytest.mark.parametrize("unit", ["\0", "語"])
    def test_a_megabyte_that_is_no_token_or_a_single_one(self, model: Instructor, unit: str) -> None:
        vectors = model.encode(["fine", unit * (1_000_000 // len(unit.encode()))], INSTRUCTION)
        assert_unit(vectors)


def scale_weights(folder: Path, factors: dict[str, float]) -> Path:
    """Multiply the encoder's tensors whose names end in the keys."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for end, factor in factors.items():
        chosen = [name for name in tensors if name.endswith(end)]
        assert chosen
        for name in chosen:
            tensors[name] = tensors[name] * factor
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


@pytest.fixture
def engine_log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.WARNING, logger="anytask.engine"):
        yield caplog


TEXTS = ["The statement raises an exception.", "A class body is executed.", "", "Modules hold names. " * 3]


WIDE: dict[str, Any] = {"shape": {"d_model": 128, "d_ff": 256}, "dense": 128}
"""So that rounding is a small part of vectors whatever random weights a release of transformers makes."""


class TestNumbers:
    def test_float16_overflow_is_computed_again_in_float32(
        self, make_checkpoint: MakeCheckpoint, call: str, engine_log: pytest.LogCaptureFixture
    ) -> None:
        folder = scale_weights(make_checkpoint(**WIDE), {"wi.weight": 2e4, "wo.weight": 5e-5})
        exact = Instructor.from_pretrained(folder, dtype="float32").encode(TEXTS, INSTRUCTION)
        half = Instructor.from_pretrained(folder, dtype="float16")
        hidden = half._engine.encoder(torch.arange(3, 13), [LengthGroup(0, 1, 10)])
        assert not torch.isfinite(hidden).all()  # float16 by itself does overflow here

        state = torch.random.get_rng_state()
        vectors = encoder_of(half, call)(TEXTS, INSTRUCTION)
        assert_unit(vectors)
        assert (vectors * exact).sum(axis=1).min() > 0.9999
        assert "overflowed" in engine_log.text
        assert torch.equal(state, torch.random.get_rng_state())

    def test_float16_without_overflow_stays_float16(
        self, make_checkpoint: MakeCheckpoint, engine_log: pytest.LogCaptureFixture
    ) -> None:
        folder = make_checkpoint(**WIDE)
        exact = Instructor.from_pretrained(folder, dtype="float32").encode(TEXTS, INSTRUCTION)
        for dtype, cosine in (("float16", 0.9999), ("bfloat16", 0.99)):
            vectors = Instructor.from_pretrained(folder, dtype=dtype).encode(TEXTS, INSTRUCTION)
            assert (vectors * exact).sum(axis=1).min() > cosine
            assert not np.array_equal(vectors, exact)
        assert not engine_log.records

    def test_weights_beyond_float16(self, make_checkpoint: MakeCheckpoint, call: str) -> None:
        folder = scale_weights(make_checkpoint(), {"wi.weight": 1e6, "wo.weight": 1e-6})
        with pytest.raises(RuntimeError, match=r'outside float16.s range.* dtype="bfloat16"'):
            encoder_of(Instructor.from_pretrained(folder, dtype="float16"), call)(TEXTS)
        assert_unit(encoder_of(Instructor.from_pretrained(folder, dtype="bfloat16"), call)(TEXTS))

    @pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
    @pytest.mark.parametrize("factor", [float("nan"), float("inf")])
    def test_weights_that_are_not_finite(
        self, make_checkpoint: MakeCheckpoint, call: str, dtype: str, factor: float
    ) -> None:
        folder = scale_weights(make_checkpoint(), {"block.1.layer.1.DenseReluDense.wo.weight": factor})
        encode = encoder_of(Instructor.from_pretrained(folder, dtype=dtype), call)
        with pytest.raises(RuntimeError, match="not finite in float32"):
            encode(TEXTS, INSTRUCTION)


class SmallDevice(torch.nn.Module):
    """The encoder on a device whose memory holds `room` tokens at a time."""

    def __init__(self, encoder: T5Encoder, room: int) -> None:
        super().__init__()
        self.encoder, self.room = encoder, room
        self.config = encoder.config
        self.error: Exception = torch.OutOfMemoryError("tried to hold too many tokens")
        self.steps: list[int] = []
        self.failures = 0

    def forward(self, token_ids: torch.Tensor, groups: Sequence[LengthGroup]) -> torch.Tensor:
        if len(token_ids) > self.room:
            self.failures += 1
            raise self.error
        self.steps.append(len(token_ids))
        hidden: torch.Tensor = self.encoder(token_ids, groups)
        return hidden


class TestMemory:
    @pytest.fixture
    def texts(self, sentences: list[str]) -> list[str]:
        return [sentence[:60] for sentence in sentences[:100]]

    @pytest.fixture
    def small(self, checkpoint: Path) -> Instructor:
        model = Instructor.from_pretrained(checkpoint, device="cpu")
        model._engine.encoder = SmallDevice(model._engine.encoder, room=150)  # type: ignore[assignment]
        return model

    def device(self, model: Instructor) -> SmallDevice:
        device = model._engine.encoder
        assert isinstance(device, SmallDevice)
        return device

    @pytest.mark.filterwarnings("ignore:.*have more tokens")
    @pytest.mark.parametrize("batch_tokens", [None, 5000])
    def test_steps_are_halved_until_they_fit(
        self,
        small: Instructor,
        model: Instructor,
        call: str,
        texts: list[str],
        batch_tokens: int | None,
        engine_log: pytest.LogCaptureFixture,
    ) -> None:
        encode, device = encoder_of(small, call), self.device(small)
        expected = model.encode(texts)
        np.testing.assert_allclose(encode(texts, batch_tokens=batch_tokens), expected, atol=1e-5)
        total = sum(device.steps)
        assert total > 5 * device.room
        assert 0 < device.failures < 8  # found out once, not at every step
        assert len(device.steps) < 3 * total / device.room
        assert "out of memory on cpu" in engine_log.text

        device.failures = 0
        np.testing.assert_allclose(encode(texts, batch_tokens=batch_tokens), expected, atol=1e-5)
        assert device.failures == 0

    @pytest.mark.filterwarnings("ignore:.*have more tokens")
    def test_devices_that_say_it_in_an_error_of_no_type_of_its_own(
        self, small: Instructor, model: Instructor, texts: list[str]
    ) -> None:
        device = self.device(small)
        device.error = RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB, max allowed: 9.07 GB)")
        np.testing.assert_allclose(small.encode(texts), model.encode(texts), atol=1e-5)
        assert device.failures > 0

    def test_other_errors_are_not_taken_for_it(self, small: Instructor, texts: list[str]) -> None:
        device = self.device(small)
        device.room, device.error = 0, RuntimeError("CUDA error: device-side assert triggered")
        with pytest.raises(RuntimeError, match="device-side assert"):
            small.encode(texts, batch_tokens=5000)
        assert not device.steps

    def test_smaller_steps_on_request_stay_smaller(self, small: Instructor, texts: list[str]) -> None:
        small.encode(texts[:40])
        self.device(small).steps.clear()
        small.encode(texts[:40], batch_tokens=50)
        assert max(self.device(small).steps) <= 50

    def test_a_text_that_never_fits(self, small: Instructor, call: str) -> None:
        device = self.device(small)
        device.room = 3
        with pytest.raises(torch.OutOfMemoryError, match="tried to hold"):
            encoder_of(small, call)(["one text of more than three tokens"])
        device.room = 150
        assert_unit(encoder_of(small, call)(["one text of more than three tokens"]))
