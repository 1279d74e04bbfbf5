"""What is run: each package's tests, with the lowest versions that its metadata admits and with the newest ones."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
TOOLS = frozenset(
    (
        "accelerate",
        "cloudpickle",
        "hypothesis",
        "mypy",
        "pytest",
        "pytest-asyncio",
        "pytest-socket",
        "sentence-transformers",
    )
)
"""What tests are run with: the newest that go with the versions under test, which they must not change."""
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}


@dataclass(frozen=True)
class Package:
    """One of the distributions.

    Attributes:
        name: what the command line and the Makefile call it.
        folder: of its pyproject.toml.
        shown: distributions whose versions stand in the table, its framework first.
        tests: files and folders that pytest is given.
        extras: of its pyproject.toml, whose requirements are installed too.
        beside: test requirements that its pyproject.toml doesn't name.
    """

    name: str
    folder: Path
    shown: tuple[str, ...]
    tests: tuple[Path, ...]
    extras: tuple[str, ...] = ("test",)
    beside: tuple[str, ...] = ()

    @property
    def project(self) -> dict[str, Any]:
        table: dict[str, Any] = tomllib.loads((self.folder / "pyproject.toml").read_text("utf-8"))["project"]
        return table

    @property
    def distribution(self) -> str:
        return str(self.project["name"])

    @property
    def ranges(self) -> list[Requirement]:
        """What its metadata asks for, without this project's own distributions."""
        return [line for line in map(Requirement, self.project["dependencies"]) if line.name not in own_names()]

    @property
    def test_requirements(self) -> list[Requirement]:
        extras = self.project["optional-dependencies"]
        return [Requirement(line) for line in (*(line for name in self.extras for line in extras[name]), *self.beside)]


INFERENCE = (
    *("bad_input", "batch_independence", "cli", "concurrency", "damaged_checkpoints", "embedder", "encode"),
    *("encoder_parity", "hub", "imports", "instruction", "loading", "precision", "shared", "tokenization", "typing"),
)
"""The core's tests of what it does without an extra."""
CORE = Package(
    "core",
    ROOT / "core",
    ("torch", "transformers", "tokenizers", "safetensors", "huggingface-hub", "numpy", "rich", "typer"),
    tuple(ROOT / "core" / "tests" / f"test_{name}.py" for name in INFERENCE),
    extras=("sentencepiece",),
    beside=("accelerate", "cloudpickle", "hypothesis", "mypy", "pytest", "pytest-asyncio", "sentence-transformers"),
)
_INTEGRATIONS = {
    "chroma": ("chromadb", "jsonschema", "langchain-chroma"),
    "haystack": ("haystack-ai", "chroma-haystack"),
    "langchain": ("langchain-core", "pydantic", "langchain-tests", "langchain-classic", "langchain-chroma"),
    "llama-index": ("llama-index-core", "llama-index-vector-stores-chroma"),
}
PACKAGES = (
    CORE,
    *(
        Package(name, ROOT / "integrations" / name, shown, (ROOT / "integrations" / name / "tests",))
        for name, shown in _INTEGRATIONS.items()
    ),
)


def own_names() -> set[str]:
    return {canonicalize_name(package.distribution) for package in PACKAGES}


@dataclass(frozen=True)
class Cell:
    """One package, one way to choose versions, one Python."""

    package: Package
    versions: str
    python: str

    @property
    def name(self) -> str:
        return f"{self.package.name}-{self.versions}-{Path(self.python).name}"

    @property
    def under_test(self) -> list[Requirement]:
        """Direct requirements of the core, of the package, and of the framework's own packages that tests use."""
        companions = [line for line in self.package.test_requirements if line.name not in TOOLS | own_names()]
        return list({str(line): line for line in (*CORE.ranges, *self.package.ranges, *companions)}.values())

    @property
    def tools(self) -> list[Requirement]:
        return [line for line in self.package.test_requirements if line.name in TOOLS]

    @property
    def own(self) -> list[str]:
        """Distributions of this project that are installed: the core, the package, and what its tests name."""
        named = [line.name for line in self.package.test_requirements if line.name in own_names()]
        return list(dict.fromkeys([CORE.distribution, self.package.distribution, *named]))
