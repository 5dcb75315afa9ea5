"""A bare environment: its own Python, the dependencies of this one, and nothing of this checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Bare:
    """An environment without pip.

    Attributes:
        folder: of the environment.
        place: the folder that commands run in; outside of the checkout.
    """

    folder: Path
    place: Path

    @classmethod
    def made(cls, folder: Path, place: Path) -> Bare:
        """A new one, which has this process's packages behind its own, but for what their `.pth` files name."""
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        bare = cls(folder, place)
        lent = [path for path in sys.path if Path(path).name == "site-packages"]
        (bare.packages / "lent.pth").write_text("\n".join(lent))
        return bare

    @property
    def packages(self) -> Path:
        return Path(sysconfig.get_path("purelib", vars={"base": str(self.folder)}))

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def install(self, *what: str | Path) -> None:
        """Install wheels or folders with a pyproject.toml, without what they need."""
        options = [
            "--quiet",
            "--no-deps",
            "--no-index",
            "--ignore-installed",
            "--no-build-isolation",
            "--disable-pip-version-check",
        ]
        self._checked([sys.executable, "-m", "pip", "--python", str(self.python), "install", *options, *map(str, what)])

    def run(self, *words: str | Path) -> str:
        """What a command of the environment prints."""
        return self._checked([str(self.folder / "bin" / words[0]), *map(str, words[1:])])

    def ended(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """A command that has ended somehow."""
        return subprocess.run(
            list(map(str, words)), cwd=self.place, env=self.environment, capture_output=True, text=True, timeout=300
        )

    @property
    def environment(self) -> dict[str, str]:
        """That of this process, but for what says where Python looks for modules."""
        return {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV_"))}

    def _checked(self, words: list[str]) -> str:
        ended = self.ended(*words)
        assert ended.returncode == 0, f"{words}: {ended.stdout}{ended.stderr}"
        return ended.stdout
