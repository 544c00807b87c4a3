"""Prints the version of everything that pyproject.toml asks for; fails if one is not the lowest that it allows.

In another case a bound would stand there that nothing was ever tested with.
"""

from __future__ import annotations

import sys
from importlib.metadata import requires, version

from packaging.requirements import Requirement
from packaging.version import Version

requirements = [Requirement(line) for line in requires("sentence-ordering") or ()]
# The extras that the environment of the tests has: `test` and the extras it names.
extras = {"test"}.union(*(one.extras for one in requirements if one.name == "sentence-ordering"))
higher = []
for requirement in requirements:
    if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
        continue
    bounds = [part.version for part in requirement.specifier if part.operator == ">="]
    if not bounds:  # the package's own extras
        continue
    installed = version(requirement.name)
    print(f"{requirement.name} {installed}")
    if Version(Version(installed).public) != Version(bounds[0]):  # without what follows a +, the kind of a build
        higher.append(f"{requirement.name}>={bounds[0]} is never installed: raise the bound to {installed}")
sys.exit("\n".join(higher) or 0)
