"""Compiles the kernels when the package is installed or a wheel is built; without them it works too, slower."""

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelsHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        path = Path(self.root, "src", "anytask", "kernels", "building.py")
        spec = importlib.util.spec_from_file_location("building", path)
        assert spec is not None
        assert spec.loader is not None
        building = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(building)
        try:
            libraries = building.build()
        except OSError as error:
            self.app.display_warning(f"Without compiled kernels, a CPU embeds more slowly: {error}")
            return
        if version != "editable":
            build_data["pure_python"] = False
            build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["artifacts"] += [str(library.relative_to(self.root)) for library in libraries]
