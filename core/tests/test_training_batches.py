"""Which records a step sees: tasks, mixing, passes and resuming; which are held out; what a batch is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from anytask.batching import TokenizedText
from anytask.checkpoint import read_tokenizer
from anytask.tokenization import InstructionTokenizer
from anytask.training import InstructedText, Record, TrainingOptions
from anytask.training.augmentation import paraphrases
from anytask.training.batches import TaskBatches, expected_batch_size
from anytask.training.collation import PairBatches
from anytask.training.pair_store import PairStore
from anytask.training.splits import hold_out

Rows = npt.NDArray[np.int64]


def tasks_of(*sizes: int) -> dict[str, Rows]:
    """Tasks named by their place, whose rows don't overlap and don't lie in order."""
    rows = np.random.default_rng(7).permutation(10 * sum(sizes))[: sum(sizes)]
    return {f"task {place}": part for place, part in enumerate(np.split(rows, np.cumsum(sizes)[:-1]))}


class TestTaskBatches:
    def test_a_batch_is_of_one_task(self) -> None:
        tasks = tasks_of(100, 57, 9)
        batches = TaskBatches(tasks, 8, 500)
        assert len(batches) == 500
        for step in range(500):
            name, rows = batches[step]
            assert len(rows) == 8
            assert len(set(rows.tolist())) == 8
            assert set(rows) <= set(tasks[name])

    @pytest.mark.parametrize("mixing", [1.0, 2.0, 4.0, 1000.0])
    def test_tasks_come_in_proportion(self, mixing: float) -> None:
        """Within four standard deviations of size^(1/mixing), over 20,000 draws."""
        sizes, steps = (10_000, 1_000, 300, 40), 20_000
        batches = TaskBatches(tasks_of(*sizes), 16, steps, mixing=mixing, seed=3)
        counts = np.bincount(batches.task_of_step, minlength=4)
        weights = np.array(sizes) ** (1 / mixing)
        expected = weights / weights.sum()
        deviation = np.sqrt(steps * expected * (1 - expected))
        assert (np.abs(counts - steps * expected) < 4 * deviation).all()

    @pytest.mark.parametrize("mixing", [1.0, 3.0])
    def test_the_expected_size_of_a_batch(self, mixing: float) -> None:
        tasks = tasks_of(400, 100, 10, 3)
        batches = TaskBatches(tasks, 16, 5_000, mixing=mixing)
        mean = np.mean([len(batches[step][1]) for step in range(len(batches))])
        assert mean < 15.95
        assert expected_batch_size(tasks, 16, mixing) == pytest.approx(mean, rel=0.01)

    def test_every_record_once_per_pass(self) -> None:
        """A task whose size is a multiple of the batch: each pass is a permutation, and no two are in one order."""
        tasks = tasks_of(40, 24)
        batches = TaskBatches(tasks, 8, 200, seed=1)
        seen: dict[str, list[int]] = {name: [] for name in tasks}
        for step in range(200):
            name, rows = batches[step]
            seen[name] += rows.tolist()
        for name, rows in tasks.items():
            passes = [seen[name][i : i + len(rows)] for i in range(0, len(seen[name]) - len(rows) + 1, len(rows))]
            assert len(passes) > 5
            assert all(sorted(order) == sorted(rows.tolist()) for order in passes)
            assert len({tuple(order) for order in passes}) == len(passes)

    def test_a_remainder_waits_for_the_next_pass(self) -> None:
        """No batch is short, none comes twice within a pass, and all are seen in the long run."""
        batches = TaskBatches(tasks_of(30), 8, 300)
        counts = Counter(row for step in range(300) for row in batches[step][1].tolist())
        assert len(counts) == 30
        assert max(counts.values()) < 1.35 * min(counts.values())
        for turn in range(100):
            rows = [row for place in range(3) for row in batches[3 * turn + place][1].tolist()]
            assert len(set(rows)) == 24

    @pytest.mark.parametrize("size", [1, 2, 7])
    def test_a_tiny_task_is_a_batch(self, size: int) -> None:
        tasks = tasks_of(size)
        batches = TaskBatches(tasks, 8, 20)
        for step in range(20):
            assert sorted(batches[step][1].tolist()) == sorted(tasks["task 0"].tolist())

    def test_a_function_of_seed_and_step_alone(self) -> None:
        """Asked in any order, in another run, and with more steps to come, step 137 is the same batch."""
        tasks = tasks_of(90, 33, 5)
        first = TaskBatches(tasks, 8, 400, seed=5)
        forwards = [first[step] for step in range(400)]
        again = TaskBatches(tasks, 8, 400, seed=5)
        for step in np.random.default_rng(0).permutation(400):
            name, rows = again[int(step)]
            assert name == forwards[step][0]
            assert rows.tolist() == forwards[step][1].tolist()

    def test_a_longer_run_begins_alike(self) -> None:
        tasks = tasks_of(90, 33, 5)
        short, long = TaskBatches(tasks, 8, 100, seed=5), TaskBatches(tasks, 8, 1000, seed=5)
        assert all(short[step][1].tolist() == long[step][1].tolist() for step in range(100))

    def test_another_seed_is_another_order(self) -> None:
        tasks = tasks_of(90, 33, 5)
        one, other = (TaskBatches(tasks, 8, 100, seed=seed) for seed in (0, 1))
        assert one.task_of_step.tolist() != other.task_of_step.tolist()
        assert one[0][1].tolist() != other[0][1].tolist()

    def test_many_tasks_are_shuffled_again_when_forgotten(self) -> None:
        """More tasks than the memory of shuffles holds."""
        tasks = tasks_of(*[16] * 300)
        batches = TaskBatches(tasks, 8, 2000)
        first = [batches[step][1].tolist() for step in range(2000)]
        assert [batches[step][1].tolist() for step in reversed(range(2000))] == first[::-1]

    def test_errors(self) -> None:
        with pytest.raises(ValueError, match="there is no task to draw batches from"):
            TaskBatches({}, 8, 10)
        with pytest.raises(ValueError, match="nothing to draw batches from in empty: no records"):
            TaskBatches({"full": np.arange(4), "empty": np.arange(0)}, 8, 10)


class TestHoldOut:
    @pytest.mark.parametrize("total", [0, 1, 10, 57, 10**6])
    @pytest.mark.parametrize("sizes", [(1000, 100, 55, 9, 2), (20,), (3, 4), (200, 200, 200)])
    def test_each_record_is_on_one_side(self, sizes: tuple[int, ...], total: int) -> None:
        tasks = tasks_of(*sizes)
        left, held = hold_out(tasks, total, seed=0)
        assert list(left) == list(tasks)
        assert held.tolist() == sorted(held.tolist())
        assert len(held) == min(total, sum(size // 10 for size in sizes))
        everything = np.concatenate([held, *left.values()])
        assert sorted(everything.tolist()) == sorted(np.concatenate(list(tasks.values())).tolist())
        for name, rows in tasks.items():
            assert set(left[name]) <= set(rows)
            assert len(rows) - len(left[name]) <= len(rows) // 10

    def test_evenly_from_all_tasks(self) -> None:
        """40 of (100, 10, 1, 1) tenths: both small limits are taken whole, the rest comes from the large ones."""
        tasks = tasks_of(1000, 1000, 100, 10, 15)
        left, held = hold_out(tasks, 42, seed=0)
        taken = [len(rows) - len(left[name]) for name, rows in tasks.items()]
        assert taken == [15, 15, 10, 1, 1]
        assert len(held) == 42

    def test_seed(self) -> None:
        tasks = tasks_of(300, 300)
        one, same, other = (hold_out(tasks, 20, seed=seed)[1].tolist() for seed in (0, 0, 1))
        assert one == same != other


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> InstructionTokenizer:
    return InstructionTokenizer(read_tokenizer(tokenizer_folder), 128)


QUERY_INSTRUCTION = "Represent the question for retrieving supporting documents: "
POS_INSTRUCTION = "Represent the document for retrieval: "


def many_records(tasks: Mapping[str, int], negatives: Sequence[int] = (3,)) -> list[Record]:
    """Records whose texts say where they belong; the numbers of negatives take turns."""
    records = []
    for task, count in tasks.items():
        for place in range(count):
            name = f"{task} number {place}"
            records.append(
                Record(
                    InstructedText(QUERY_INSTRUCTION, f"what is the question of {name}"),
                    InstructedText(POS_INSTRUCTION, f"this is the answer of {name}"),
                    tuple(
                        InstructedText(POS_INSTRUCTION, f"this is the wrong answer {wrong} of {name}")
                        for wrong in range(negatives[place % len(negatives)])
                    ),
                    task,
                )
            )
    return records


MakeBatches = Callable[..., PairBatches]
Texts = list[tuple[str, str]]
ViewsOf = Callable[..., list[tuple[Record, Texts]]]


@pytest.fixture
def make_batches(tokenizer: InstructionTokenizer, tmp_path: Path) -> MakeBatches:
    def make(
        records: Sequence[Record], *, steps: int = 6, process: int = 0, processes: int = 1, **options: object
    ) -> PairBatches:
        chosen = TrainingOptions(steps=steps, **{"batch_size": 6, **options})  # type: ignore[arg-type]
        store = PairStore.write(records, tmp_path / "records.arrow")
        plan = TaskBatches(store.tasks(), chosen.batch_size, steps, seed=chosen.seed)
        return PairBatches(store, plan, tokenizer, chosen, process=process, processes=processes)

    return make


def decoded(batches: PairBatches, texts: Sequence[TokenizedText]) -> Texts:
    """(instruction, text) of each, by the tokens that are left out of the mean and those that are in it."""
    tokenizer = batches.tokenizer.tokenizer
    return [
        (tokenizer.decode(text.ids[: text.pool_start]), tokenizer.decode(text.ids[text.pool_start :])) for text in texts
    ]


class TestPairBatches:
    RECORDS = many_records({"red": 30, "blue": 20}, negatives=(0, 1, 3))

    def test_queries_then_positives_then_negatives(self, make_batches: MakeBatches) -> None:
        batches = make_batches(self.RECORDS)
        for step in range(len(batches)):
            batch = batches[step]
            _, rows = batches.plan[step]
            records = [batches.store[int(row)] for row in rows]
            sides = [r.query for r in records] + [r.pos for r in records] + [n for r in records for n in r.neg]
            assert batch.name == records[0].task_id
            assert (batch.roles.pairs, batch.roles.negatives) == (6, sum(len(r.neg) for r in records))
            expected = batches.tokenizer([side.text for side in sides], [side.instruction for side in sides])
            assert [text.ids.tolist() for text in batch.texts] == [text.ids.tolist() for text in expected]
            assert [text.pool_start for text in batch.texts] == [text.pool_start for text in expected]
            assert batch.tokens == sum(len(text.ids) for text in expected)

    def test_equal_texts_have_equal_keys(self, make_batches: MakeBatches) -> None:
        same = Record(
            InstructedText("a: ", "one"),
            InstructedText("b: ", " one "),
            (InstructedText("", "two"), InstructedText("", "One")),
            1,
        )
        roles = make_batches([same, same], steps=1)[0].roles
        q, p, n = (side.tolist() for side in roles.sides(roles.keys))
        assert q == p == [q[0], q[0]]
        assert n[0] == n[2] != n[1] == n[3]
        assert len({q[0], n[0], n[1]}) == 3

    @pytest.mark.parametrize("most", [0, 1, 2, 5])
    def test_at_most_so_many_negatives(self, make_batches: MakeBatches, most: int) -> None:
        batches = make_batches(many_records({"red": 60}, negatives=(1, 4)), steps=10, max_negatives=most, batch_size=60)
        chosen: Counter[str] = Counter()
        for step in range(10):
            batch = batches[step]
            texts = decoded(batches, batch.texts)[2 * batch.roles.pairs :]
            assert len(texts) == 30 * min(most, 1) + 30 * min(most, 4)
            by_record: dict[str, list[str]] = {}
            for _, text in texts:
                wrong, _, name = text.removeprefix("this is the wrong answer ").partition(" of ")
                by_record.setdefault(name, []).append(wrong)
                chosen[wrong] += 1
            assert all(len(set(found)) == len(found) <= most for found in by_record.values())
        if 0 < most < 4:
            assert set(chosen) == {"0", "1", "2", "3"}  # all of them come in some step
            shares = [chosen[wrong] / 300 for wrong in "123"]
            assert shares == pytest.approx([most / 4] * 3, abs=0.12)

    def test_processes_share_a_batch(self, make_batches: MakeBatches) -> None:
        alone = make_batches(self.RECORDS, word_dropout=0.3, max_negatives=2)
        shares = [
            make_batches(self.RECORDS, word_dropout=0.3, max_negatives=2, process=p, processes=4) for p in range(4)
        ]
        for step in range(len(alone)):
            whole = alone[step]
            parts = [share[step] for share in shares]
            assert [part.roles.pairs for part in parts] == [2, 2, 1, 1]
            for side in range(3):
                joined = [key for part in parts for key in part.roles.sides(part.roles.keys)[side].tolist()]
                assert sorted(joined) == sorted(whole.roles.sides(whole.roles.keys)[side].tolist())
            tokens = sorted(text.ids.tolist() for part in parts for text in part.texts)
            assert tokens == sorted(text.ids.tolist() for text in whole.texts)

    def test_a_task_too_small_for_the_processes(self, make_batches: MakeBatches) -> None:
        with pytest.raises(ValueError, match="task tiny gives batches of 2 records, fewer than the 3 processes"):
            make_batches(many_records({"large": 30, "tiny": 2}), process=0, processes=3)

    @pytest.mark.parametrize(
        "options",
        [{}, {"word_dropout": 0.4}, {"instruction_paraphrase": 0.7, "instruction_dropout": 0.3}, {"max_negatives": 1}],
        ids=str,
    )
    def test_a_function_of_seed_and_step_alone(self, make_batches: MakeBatches, options: dict[str, object]) -> None:
        def contents(batches: PairBatches, step: int) -> list[list[int]]:
            return [text.ids.tolist() for text in batches[step].texts]

        first = make_batches(self.RECORDS, **options)
        forwards = [contents(first, step) for step in range(6)]
        again = make_batches(self.RECORDS, **options)
        assert [contents(again, step) for step in (5, 0, 3, 3)] == [forwards[step] for step in (5, 0, 3, 3)]
        assert contents(make_batches(self.RECORDS, seed=1, **options), 0) != forwards[0]


class TestAugmentation:
    RECORDS = many_records({"red": 40}, negatives=(1,))

    @pytest.fixture
    def views(self, make_batches: MakeBatches) -> ViewsOf:
        """Each record with (instruction, text) of its query, positive and negative, over some steps."""

        def of(**options: object) -> list[tuple[Record, Texts]]:
            batches = make_batches(self.RECORDS, steps=10, batch_size=40, **options)
            found = []
            for step in range(10):
                batch = batches[step]
                texts = decoded(batches, batch.texts)
                for place, row in enumerate(batches.plan[step][1]):
                    found.append((batches.store[int(row)], [texts[place], texts[40 + place], texts[80 + place]]))
            return found

        return of

    def sides(self, record: Record) -> Texts:
        return [(side.instruction.strip(), side.text) for side in (record.query, record.pos, *record.neg)]

    def test_none(self, views: ViewsOf) -> None:
        assert all(found == self.sides(record) for record, found in views())

    def test_instruction_dropout(self, views: ViewsOf) -> None:
        """All instructions of a record or none, texts as they are."""
        dropped = 0
        for record, found in views(instruction_dropout=0.25):
            without = [("", text) for _, text in self.sides(record)]
            assert found in (self.sides(record), without)
            dropped += found == without
        assert dropped / 400 == pytest.approx(0.25, abs=0.08)

    def test_instruction_paraphrase(self, views: ViewsOf) -> None:
        """Another wording of the same instruction, texts as they are, documents of a record alike."""
        reworded, wordings = 0, set()
        for record, found in views(instruction_paraphrase=0.5):
            assert [text for _, text in found] == [text for _, text in self.sides(record)]
            for (instruction, _), side in zip(found, (record.query, record.pos, *record.neg), strict=True):
                assert instruction in {wording.strip() for wording in paraphrases(side.instruction)}
            assert found[1][0] == found[2][0]
            reworded += found[0][0] != record.query.instruction.strip()
            wordings.add(found[0][0])
        assert reworded / 400 == pytest.approx(0.5, abs=0.1)
        assert len(wordings) > 20

    def test_word_dropout(self, views: ViewsOf) -> None:
        """Words go, in any text of a record; what stays is in its order, and the instruction is whole."""
        kept = total = 0
        for record, found in views(word_dropout=0.3):
            for (instruction, text), (expected, original) in zip(found, self.sides(record), strict=True):
                assert instruction == expected
                words = iter(original.split())
                assert text.split()
                assert all(word in words for word in text.split())
                kept, total = kept + len(text.split()), total + len(original.split())
        assert kept / total == pytest.approx(0.7, abs=0.03)

    def test_dropped_words_dont_make_other_texts(self, make_batches: MakeBatches) -> None:
        """Two records with one question stay false negatives of each other, whatever words each loses."""
        records = [
            Record(
                InstructedText("", "the very same question of two records"), InstructedText("", f"answer {n}"), (), 1
            )
            for n in range(6)
        ]
        batches = make_batches(records, word_dropout=0.5)
        for step in range(6):
            roles = batches[step].roles
            assert len(set(roles.sides(roles.keys)[0].tolist())) == 1
            assert len({tuple(text.ids) for text in batches[step].texts[:6]}) > 1


def test_batches_from_threads(make_batches: MakeBatches) -> None:
    """The next batch is made beside the model's work, also when two are asked for at a time."""
    batches = make_batches(many_records({"red": 50, "blue": 50}), steps=40, word_dropout=0.2)
    alone = [[text.ids.tolist() for text in batches[step].texts] for step in range(40)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda step: [text.ids.tolist() for text in batches[step].texts], range(40)))
    assert found == alone
