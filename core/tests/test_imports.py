"""What importing and using the package loads, in interpreters of their own, and how a missing extra is told."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

MakeCheckpoint = Callable[..., Path]

BLOCK = textwrap.dedent("""
    import importlib.abc, sys

    class Missing(importlib.abc.MetaPathFinder):
        \"\"\"Makes packages look as if they weren't installed.\"\"\"

        def __init__(self, *names):
            self.names = names

        def find_spec(self, name, path=None, target=None):
            if any(name == missing or name.startswith(missing + ".") for missing in self.names):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    def block(*names):
        sys.meta_path.insert(0, Missing(*names))
""")


def run_python(script: str, *arguments: object) -> str:
    """Standard output of a fresh interpreter that must succeed."""
    process = subprocess.run(
        [sys.executable, "-c", BLOCK + textwrap.dedent(script), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_embedding_loads_no_framework() -> None:
    loaded = run_python("""
        import asyncio, pickle, sys
        import anytask

        model = anytask.Instructor.from_pretrained("mini")
        model.encode(["a text"], instruction=anytask.Instruction("text"))
        asyncio.run(model.aencode_query("a text"))
        anytask.Embedder().embed_documents(["a text"])
        pickle.loads(pickle.dumps(model)).encode("a text")
        print(*sorted({name.split(".")[0] for name in sys.modules}))
    """).split()
    assert {"anytask", "torch", "tokenizers", "numpy"} <= set(loaded)
    heavy = {"transformers", "sentence_transformers", "huggingface_hub", "sentencepiece", "sklearn", "scipy", "pandas"}
    frameworks = {"langchain", "langchain_core", "llama_index", "haystack", "haystack_integrations", "chromadb"}
    interface = {"typer", "click", "rich", "pydantic"}
    assert not (heavy | frameworks | interface) & set(loaded)


def test_embedding_needs_no_extra_and_no_framework() -> None:
    assert (
        run_python("""
        block("transformers", "sentence_transformers", "sentencepiece", "google.protobuf", "sklearn", "scipy")
        from anytask import Instructor
        print(Instructor.from_pretrained("mini").encode("a text").shape)
    """)
        == "(384,)\n"
    )


def test_evaluation_names_its_extra() -> None:
    messages = run_python("""
        for name in ("scipy", "sklearn"):
            block(name)
            try:
                import anytask.evaluation
            except ImportError as error:
                print(error)
            del sys.meta_path[0]
    """).splitlines()
    for name, message in zip(("scipy", "sklearn"), messages, strict=True):
        assert f"No module named '{name}'" in message
        assert 'pip install "anytask[eval]"' in message


def test_converting_a_sentencepiece_model_names_its_extra(make_checkpoint: MakeCheckpoint) -> None:
    message = run_python(
        """
        block("sentencepiece")
        import anytask
        try:
            anytask.Instructor.from_pretrained(sys.argv[1])
        except ImportError as error:
            print(error)
        """,
        make_checkpoint(spiece=True),
    )
    assert "spiece.model" in message
    assert 'pip install "anytask[sentencepiece]"' in message


def test_public_names() -> None:
    import anytask

    assert all(hasattr(anytask, name) for name in anytask.__all__)
    assert {"Instructor", "Instruction", "Embedder", "CheckpointError", "load_shared"} <= set(anytask.__all__)
    assert Path(anytask.__file__).with_name("py.typed").is_file()
