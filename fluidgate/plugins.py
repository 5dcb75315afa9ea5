"""What other installed packages bring, by entry points: policies, profiles and readers of traces.

Nothing of it is looked for before a name or a file is not known here, or a list is shown. What can't be loaded is told
in one line that names the package, and the rest goes on.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

from fluidgate.errors import FluidgateError, one_line
from fluidgate.extras import missing_extra

POLICIES = "fluidgate.policies"
PROFILES = "fluidgate.profiles"
TRACES = "fluidgate.traces"

log = logging.getLogger("fluidgate.plugins")

_loaded: set[str] = set()


@dataclass(frozen=True)
class Plugin:
    """An entry point.

    Attributes:
        name: what it goes by.
        package: the distribution that brings it.
    """

    name: str
    package: str
    entry: EntryPoint = field(repr=False)

    def load(self) -> Any:
        """The object that it names.

        Raises:
            FluidgateError: it can't be imported.
        """
        try:
            found = self.entry.load()
        except (Exception, SystemExit) as error:
            if missing := missing_extra(error):
                raise FluidgateError(f"{self._what} can't be loaded: {missing}") from error
            reason = one_line(str(error)) or "no message"
            raise self.wrong(f"can't be loaded: {type(error).__name__}: {reason}") from error
        _loaded.add(self.entry.module.partition(".")[0])
        return found

    def wrong(self, reason: str) -> FluidgateError:
        """What is wrong with it, in a line that names the package."""
        return FluidgateError(f"{self._what} {reason}; mend or uninstall that package")

    @property
    def _what(self) -> str:
        return f"{self.entry.group}: '{self.name}' of the package {self.package}"


def plugins(group: str) -> list[Plugin]:
    """Those of a group, by package and name."""
    found = [Plugin(each.name, each.dist.name if each.dist else "?", each) for each in entry_points(group=group)]
    return sorted(found, key=lambda each: (each.package.lower(), each.name))


def warn_of(error: FluidgateError) -> None:
    """What is wrong with a package goes to the log `fluidgate.plugins`; on the command line that is a warning."""
    log.warning("%s", error)


def modules() -> Iterator[ModuleType]:
    """The packages of which something was loaded in this process."""
    yield from (sys.modules[name] for name in sorted(_loaded) if name in sys.modules)
