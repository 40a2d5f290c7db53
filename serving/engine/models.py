"""The served models by name and version, and how they are loaded and unloaded."""

import asyncio
import gc
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar, TypeVarTuple

from pdeinfer import ModelNotFoundError, ModelPackageError, PdeinferError
from pdeinfer.package import zoo
from pdeinfer.package.package import ModelPackage
from serving.engine.isolation import Isolation
from serving.engine.served_model import ServedModel
from serving.engine.sources import find_packages, split_name
from serving.engine.threads import Threads, run_abandonable
from serving.errors import ModelLoadError, ModelNotServedError, VersionNotServedError
from serving.settings import Settings

logger = logging.getLogger(__name__)

Action: TypeAlias = Literal["load", "reload", "unload"]

# The models to serve by name: the digests of their packages by version, or None for whatever packages there are.
Expected: TypeAlias = Mapping[str, Mapping[str, str] | None]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, slots=True)
class PreparedChange:
    """A change of one model that can be applied at once.

    Attributes:
        models: what will be served under the name, by version; empty to unload the model.
        order: all names that the sources hold, in order.
    """

    name: str
    models: dict[str, ServedModel]
    order: tuple[str, ...] = ()

    def digests_after(self, digests: Mapping[str, Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
        """Return what `Models.digests` is after the change, given what it is before it."""
        own = {version: self.models[version].digest for version in sorted(self.models, key=int)}
        return {name: own if name == self.name else digests[name] for name in self.names_after(list(digests))}

    def names_after(self, names: Sequence[str]) -> list[str]:
        """Return the names that are served after the change, in order, given those before it."""
        if not self.models:
            return [name for name in names if name != self.name]
        if self.name in names:
            return list(names)
        # A model that returns takes its old place, because the first model answers requests that name none.
        later = self.order[self.order.index(self.name) + 1 :]
        place = next((index for index, name in enumerate(names) if name in later), len(names))
        return [*names[:place], self.name, *names[place:]]


class Models:
    """The served models by name and version; empty until `load`.

    Args:
        settings: which models, on which device, with which limits.

    Attributes:
        threads: runs work that would block the event loop.
        draining: whether the server is about to stop.
    """

    def __init__(self, settings: Settings) -> None:
        self.draining = False
        self.threads = Threads(settings.worker_threads)
        self._settings = settings
        self._changing = asyncio.Lock()
        self._isolation = Isolation(settings)
        self._models: dict[str, dict[str, ServedModel]] = {}

    async def load(self, expected: Expected | None = None) -> None:
        """Load the models to serve at first.

        Args:
            expected: which of the settings' models, in this order; None: all; there must be at least one.

        Raises:
            ModelNotFoundError: a name in the settings or in `expected` has no model, or there are no models. With admin
                keys, `per_model` may name models that will be loaded later.
            ModelPackageError: a package is damaged, is not the expected one or takes too long to load, or two have the
                same name and version.
            DeviceError: the device cannot be used.
        """
        found = await self._within_deadline(self._find, None if expected is None else list(expected))
        if not found and expected is None:
            raise ModelNotFoundError("there are no bundled models: name a package folder to serve")
        unknown = sorted(self._settings.per_model.keys() - found.keys())
        if unknown and expected is None and not self._settings.keys_of_admins():
            raise ModelNotFoundError(f"per_model: expected one of {', '.join(found)}, got {unknown[0]!r}")
        if expected is not None:
            found = {name: _take_expected(name, found.get(name, {}), digests) for name, digests in expected.items()}
        for name, packages in found.items():
            self._models[name] = await self._within_deadline(self._load, name, packages)
            self._set_served(name, True)

    def start_decoding(self) -> None:
        """Start the processes that decode images, which the first of them would start otherwise."""
        self._isolation.start()

    @property
    def ready(self) -> bool:
        """Whether new requests should come here."""
        return bool(self._models) and not self.draining

    @property
    def names(self) -> list[str]:
        """The names of the served models, in order."""
        return list(self._models)

    @property
    def digests(self) -> dict[str, dict[str, str]]:
        """The digests of the served packages by name, in order, and version."""
        return {
            name: {version: self._models[name][version].digest for version in self.versions(name)}
            for name in self._models
        }

    @property
    def default(self) -> str | None:
        """The name of the first model, which answers requests that name none; None if all were unloaded."""
        return next(iter(self._models), None)

    @property
    def any_is_full(self) -> bool:
        """Whether the queue of one of the models has no room for another image."""
        return any(model.is_full for versions in self._models.values() for model in versions.values())

    def __iter__(self) -> Iterator[ServedModel]:
        """Every version of every model, the highest version of each first."""
        for name in self._models:
            for version in reversed(self.versions(name)):
                yield self._models[name][version]

    def versions(self, name: str) -> tuple[str, ...]:
        """Return the served versions of a model, lowest first.

        Raises:
            ModelNotServedError: no model of that name is served.
        """
        if name not in self._models:
            served = ", ".join(self._models) or "none"
            raise ModelNotServedError(f"no model {name!r} is served, only: {served}")
        return tuple(sorted(self._models[name], key=int))

    def get(self, name: str, version: str | None = None) -> ServedModel:
        """Return a model, by default in its highest version.

        Raises:
            ModelNotServedError, VersionNotServedError: no such model or no such version is served.
        """
        versions = self.versions(name)
        if version is None:
            version = versions[-1]
        if version not in versions:
            message = f"no version {version!r} of {name!r} is served, only: {', '.join(versions)}"
            raise VersionNotServedError(message)
        return self._models[name][version]

    async def change(self, name: str, action: Action) -> tuple[str, ...]:
        """Load, reload or unload a model, and return the versions that are served then.

        Raises:
            ModelNotServedError, ModelLoadError: as `prepare` does; nothing was changed.
        """
        async with self._changing:
            change = await self.prepare(name, action)
            self.apply(change)
        return tuple(change.models)

    async def prepare(self, name: str, action: Action) -> PreparedChange:
        """Load the packages that the sources now hold under a name, without serving them yet.

        Raises:
            ModelNotServedError: no such model is served, or the sources hold none to load.
            ModelLoadError: it cannot be loaded, or takes too long.
        """
        if action != "load":
            self.versions(name)
        if action == "unload":
            return PreparedChange(name, {})
        try:
            return await self._within_deadline(self._prepare, name)
        except (PdeinferError, MemoryError) as error:
            logger.exception("%s cannot be loaded", name)
            served = "is served as before" if name in self._models else "is not served"
            raise ModelLoadError(f"{name!r} cannot be loaded, and {served}; the server's log says why") from error

    def apply(self, change: PreparedChange) -> None:
        """Serve a prepared change; requests that hold the former model are still answered by it."""
        gc.unfreeze()  # a worker freezes its first models, which would otherwise never be freed
        self._set_served(change.name, False)
        for version, model in self._models.get(change.name, {}).items():
            if version not in change.models:  # otherwise both models count in the same gauges
                model.metrics.remove_gauges()
        models = {**self._models, change.name: change.models}
        self._models = {name: models[name] for name in change.names_after(self.names)}
        self._set_served(change.name, True)
        execution = [model.execution for model in change.models.values()]
        fields = {"model": change.name, "versions": list(change.models), "execution": execution}
        logger.info("a model was changed", extra={"fields": fields})

    def close(self) -> None:
        """Wait for work in progress."""
        self._isolation.close()
        self.threads.close()

    async def _within_deadline(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a function that reads packages in a thread of its own, which is abandoned if it takes too long."""
        seconds = self._settings.load_timeout
        try:
            async with asyncio.timeout(seconds):
                return await run_abandonable(function, *args)
        except TimeoutError as error:
            problem = f"a model was not loaded within {seconds:g} seconds: check its files, or raise --load-timeout"
            raise ModelPackageError(problem) from error

    def _find(self, wanted: Sequence[str] | None) -> dict[str, dict[str, ModelPackage]]:
        """Return the packages that the sources hold, by name and version.

        A missing source or a damaged package raises an error, unless all `wanted` models were found without it and none
        of their versions is in the same folder.
        """
        found: dict[str, dict[str, ModelPackage]] = {}
        unusable: dict[Path, PdeinferError] = {}

        @contextmanager
        def tolerating(location: str | Path) -> Iterator[None]:
            try:
                yield
            except (ModelNotFoundError, ModelPackageError) as error:
                if wanted is None:
                    raise
                unusable[Path(location)] = error

        for source in self._settings.models or zoo.names():
            given_name, place = split_name(source)
            packages: list[tuple[str, ModelPackage]] = []
            with tolerating(place):
                for version, location in find_packages(place):
                    with tolerating(location):
                        is_name = isinstance(location, str)
                        packages.append((version, zoo.load(location) if is_name else ModelPackage.read(location)))
            for version, package in packages:
                name = given_name or package.card.preset.name
                versions = found.setdefault(name, {})
                if version not in versions:
                    versions[version] = package
                    continue
                problem = (
                    f"two of the models to serve have the name {name!r} and version {version}, "
                    f"{versions[version].path} and {package.path}: NAME=PATH serves one under another name"
                )
                if wanted is None or name in wanted:
                    raise ModelPackageError(problem)
                logger.warning(problem)
        for path, error in unusable.items():
            for name in wanted or ():
                versions = found.get(name, {})
                if not versions or any(package.path == path.parent / number for number, package in versions.items()):
                    raise error
            logger.warning("skipped a package: %s", error)
        return found

    def _prepare(self, name: str) -> PreparedChange:
        found = self._find([name])
        if name not in found:
            raise ModelNotServedError(f"there is no package of a model {name!r} to load")
        return PreparedChange(name, self._load(name, found[name]), tuple(found))

    def _load(self, name: str, packages: dict[str, ModelPackage]) -> dict[str, ServedModel]:
        return {
            version: ServedModel(packages[version], name, version, self._settings, self.threads, self._isolation)
            for version in sorted(packages, key=int)
        }

    def _set_served(self, name: str, is_served: bool) -> None:
        for model in self._models.get(name, {}).values():
            info = model.info
            model.metrics.set_served(info.device, info.provider, info.pde_layers, info.cuda_graphs, is_served)
            if is_served:
                model.metrics.max_queue_images.set(model.max_queue)


def _take_expected(
    name: str, packages: dict[str, ModelPackage], digests: Mapping[str, str] | None
) -> dict[str, ModelPackage]:
    """Return the packages of a model that have these digests, by version."""
    if not packages:
        raise ModelNotFoundError(f"the package of the model {name!r} has been removed")
    if digests is None:
        return packages
    for version, digest in digests.items():
        if version not in packages or packages[version].digest != digest:
            raise ModelPackageError(
                f"the package of the model {name!r}, version {version}, was changed or removed after other workers had "
                "loaded it: restore it, reload the model, or restart the server"
            )
    return {version: packages[version] for version in digests}
