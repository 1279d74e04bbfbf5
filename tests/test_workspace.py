"""The five distributions as they are shipped: wheels, metadata and the lock."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECTS = [ROOT / "core", *sorted(path.parent for path in ROOT.glob("integrations/*/pyproject.toml"))]
MEGABYTE = 1_000_000


def project_table(project: Path) -> dict[str, object]:
    table: dict[str, object] = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    return table


def locked() -> dict[str, Version]:
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.lock").read_text("utf-8").splitlines()]
    pins = [re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+)", line) for line in lines if line]
    assert all(pins), "every line of the lock is name==version"
    return {canonicalize_name(pin[1]): Version(pin[2]) for pin in pins if pin}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each project's wheel, built from the working tree without the network."""
    folder = tmp_path_factory.mktemp("wheels")
    built = {}
    for project in PROJECTS:
        target = folder / project.name
        build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
        subprocess.run([*build, "-w", str(target), str(project)], check=True, capture_output=True)
        (built[project.name],) = target.glob("*.whl")
    return built


def test_there_are_five_distributions() -> None:
    names = {str(project_table(project)["name"]) for project in PROJECTS}
    assert names == {
        "anytask",
        "langchain-anytask",
        "llama-index-embeddings-anytask",
        "anytask-haystack",
        "chroma-anytask",
    }


def test_the_lock_satisfies_what_the_distributions_ask_for() -> None:
    lock = locked()
    own = {canonicalize_name(str(project_table(project)["name"])) for project in PROJECTS}
    for project in PROJECTS:
        for line in project_table(project)["dependencies"]:  # type: ignore[attr-defined]
            requirement = Requirement(line)
            name = canonicalize_name(requirement.name)
            if name not in own:
                assert lock[name] in requirement.specifier, f"{project.name} asks for {line}"


def test_every_adapter_asks_for_the_same_core() -> None:
    asked = {
        project.name: line.partition("anytask")[2]
        for project in PROJECTS
        for line in project_table(project)["dependencies"]  # type: ignore[attr-defined]
        if Requirement(line).name == "anytask"
    }
    assert asked == dict.fromkeys(("chroma", "haystack", "langchain", "llama-index"), ">=0.1,<0.2")


@pytest.mark.parametrize("project", [project.name for project in PROJECTS])
def test_wheels_are_typed_and_licensed(wheels: dict[str, Path], project: str) -> None:
    names = zipfile.ZipFile(wheels[project]).namelist()
    assert any(name.endswith("/py.typed") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any("/tests/" in name for name in names)


def test_the_core_wheel_carries_mini(wheels: dict[str, Path]) -> None:
    archive = zipfile.ZipFile(wheels["core"])
    mini = {info.filename: info.file_size for info in archive.infolist() if "anytask/models/mini/" in info.filename}
    assert {"anytask/models/mini/README.md", "anytask/models/mini/tokenizer.json"} <= set(mini)
    assert sum(mini.values()) <= 40 * MEGABYTE


def test_the_installed_wheel_embeds(wheels: dict[str, Path], tmp_path: Path) -> None:
    zipfile.ZipFile(wheels["core"]).extractall(tmp_path)
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import anytask; print(anytask.__file__)\n"
        "print(anytask.Instructor.from_pretrained('mini').encode('a text', 'Represent the text: ').shape)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=tmp_path)
    path, shape = done.stdout.split("\n")[:2]
    assert Path(path).is_relative_to(tmp_path)
    assert re.fullmatch(r"\(\d+,\)", shape)
