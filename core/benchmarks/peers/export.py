"""A T5 encoder with INSTRUCTOR's pooling as an ONNX graph, written node by node, and the texts it is fed.

Inputs: "ids" [B, L] int64, "mask" [B, L] float32 (0 on padding), "pool" [B, L] float32 (0 on the instruction and on
padding). Output: "vectors" [B, dimension], not normalised. For encoders with relu and one table of position biases.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "src" / "anytask" / "files"))  # peers don't have the package
from texts import INSTRUCTION
from whole import whole_file

LONGEST = 512
STEP_TOKENS = 1024
"""Most tokens of a batch, padding included."""
Floats = npt.NDArray[np.float32]


class Graph:
    """ONNX nodes as they are added; each has one output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, value: npt.NDArray[np.generic]) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name


def bias_by_distance(table: Floats, buckets: int, farthest: int) -> Floats:
    """[H, 2 * LONGEST - 1]: T5's bidirectional bias of each distance from key to query."""
    distance = np.arange(1 - LONGEST, LONGEST)
    half = buckets // 2
    exact = half // 2
    far = np.abs(distance)
    scaled = np.log(np.maximum(far, 1) / exact) / np.log(farthest / exact) * (half - exact)
    bucket = np.where(far < exact, far, np.minimum(exact + scaled.astype(int), half - 1)) + half * (distance > 0)
    return np.ascontiguousarray(table[bucket].T)


def export(folder: Path, path: Path) -> None:
    """Write the checkpoint in `folder` as ONNX."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    if config["feed_forward_proj"] != "relu":
        raise SystemExit(f"{folder} has the feed-forward {config['feed_forward_proj']}, this export does relu only")
    weights = {name: value.astype(np.float32) for name, value in load_file(folder / "model.safetensors").items()}
    heads, width, epsilon = config["num_heads"], config["d_kv"], config["layer_norm_epsilon"]
    g = Graph()
    last = g.constant(np.array([-1]))
    apart = g.constant(np.array([0, 0, heads, width]))
    together = g.constant(np.array([0, 0, heads * width]))

    def linear(x: str, weight: Floats) -> str:
        return g.add("MatMul", x, g.constant(np.ascontiguousarray(weight.T)))

    def norm(x: str, gain: Floats) -> str:
        mean = g.add("ReduceMean", g.add("Mul", x, x), last)
        root = g.add("Sqrt", g.add("Add", mean, g.constant(np.float32(epsilon))))
        return g.add("Mul", g.add("Div", x, root), g.constant(gain))

    length = g.add("Gather", g.add("Shape", "ids"), g.constant(np.array(1)))
    place = g.add("Range", g.constant(np.array(0)), length, g.constant(np.array(1)))
    keys, queries = (
        g.add("Unsqueeze", place, g.constant(np.array([0]))),
        g.add("Unsqueeze", place, g.constant(np.array([1]))),
    )
    distance = g.add("Add", g.add("Sub", keys, queries), g.constant(np.array(LONGEST - 1)))
    table = weights["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    biases = bias_by_distance(
        table, config["relative_attention_num_buckets"], config["relative_attention_max_distance"]
    )
    bias = g.add("Unsqueeze", g.add("Gather", g.constant(biases), distance, axis=1), g.constant(np.array([0])))
    masked = g.add("Mul", g.add("Sub", "mask", g.constant(np.float32(1))), g.constant(np.float32(1e9)))
    bias = g.add("Add", bias, g.add("Unsqueeze", masked, g.constant(np.array([1, 2]))))
    x = g.add("Gather", g.constant(weights.get("shared.weight", weights.get("encoder.embed_tokens.weight"))), "ids")
    for layer in range(config["num_layers"]):
        attention, feed_forward = (f"encoder.block.{layer}.layer.{part}" for part in (0, 1))
        normed = norm(x, weights[f"{attention}.layer_norm.weight"])
        q, k, v = (
            g.add(
                "Transpose",
                g.add("Reshape", linear(normed, weights[f"{attention}.SelfAttention.{part}.weight"]), apart),
                perm=[0, 2, 3, 1] if part == "k" else [0, 2, 1, 3],
            )
            for part in "qkv"
        )
        scores = g.add("Softmax", g.add("Add", g.add("MatMul", q, k), bias), axis=-1)
        context = g.add("Transpose", g.add("MatMul", scores, v), perm=[0, 2, 1, 3])
        context = g.add("Reshape", context, together)
        x = g.add("Add", x, linear(context, weights[f"{attention}.SelfAttention.o.weight"]))
        normed = norm(x, weights[f"{feed_forward}.layer_norm.weight"])
        hidden = g.add("Relu", linear(normed, weights[f"{feed_forward}.DenseReluDense.wi.weight"]))
        x = g.add("Add", x, linear(hidden, weights[f"{feed_forward}.DenseReluDense.wo.weight"]))
    x = norm(x, weights["encoder.final_layer_norm.weight"])
    pool = g.add("Unsqueeze", "pool", g.constant(np.array([1])))
    total = g.add("Squeeze", g.add("MatMul", pool, x), g.constant(np.array([1])))
    mean = g.add("Div", total, g.add("ReduceSum", "pool", last))
    dense = load_file(folder / "2_Dense" / "model.safetensors")["linear.weight"].astype(np.float32)
    g.nodes.append(helper.make_node("Identity", [linear(mean, dense)], ["vectors"]))
    inputs = [
        helper.make_tensor_value_info(name, kind, ["B", "L"])
        for name, kind in (("ids", TensorProto.INT64), ("mask", TensorProto.FLOAT), ("pool", TensorProto.FLOAT))
    ]
    output = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["B", len(dense)])
    graph = helper.make_graph(g.nodes, "encoder", inputs, [output], g.initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def exported(folder: Path) -> Path:
    """The graph of a checkpoint, written when first asked for."""
    path = Path("build/peers") / f"{folder.name}.onnx"
    if not path.exists():
        with whole_file(path) as partial:
            export(folder, partial)
    return path


class Batches:
    """Texts with `INSTRUCTION` as the graph's inputs: sorted by length, padded, up to STEP_TOKENS each."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(LONGEST)
        self.instruction = len(self.tokenizer.encode(INSTRUCTION.strip(), add_special_tokens=False).ids)

    def __call__(self, texts: list[str]) -> Iterator[tuple[list[int], dict[str, npt.NDArray[np.generic]]]]:
        """The places of a batch's texts, and its inputs."""
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch_fast([INSTRUCTION + text for text in texts])]
        batch: list[int] = []
        for place in sorted(range(len(ids)), key=lambda place: len(ids[place])):
            if batch and (len(batch) + 1) * len(ids[place]) > STEP_TOKENS:
                yield batch, self._inputs([ids[place] for place in batch])
                batch = []
            batch.append(place)
        yield batch, self._inputs([ids[place] for place in batch])

    def _inputs(self, ids: list[list[int]]) -> dict[str, npt.NDArray[np.generic]]:
        shape = len(ids), max(map(len, ids))
        padded, mask = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        for row, tokens in enumerate(ids):
            padded[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        pool = mask.copy()
        pool[:, : self.instruction] = 0
        return {"ids": padded, "mask": mask, "pool": pool}
