"""The served models by name and version, and how they are loaded and unloaded."""

import asyncio
import gc
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from pdeinfer import ModelNotFoundError, ModelPackageError, PdeinferError
from pdeinfer.package import zoo
from pdeinfer.package.package import ModelPackage
from serving.engine.pixel_budget import PixelBudget
from serving.engine.served_model import ServedModel
from serving.engine.sources import find_packages
from serving.engine.threads import Threads
from serving.errors import ModelLoadError, ModelNotServedError, VersionNotServedError
from serving.settings import Settings

logger = logging.getLogger(__name__)

Action: TypeAlias = Literal["load", "reload", "unload"]


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be served under a name, by version, in place of what is served under it now; nothing: unload it.

    Attributes:
        order: the names that the sources hold, in order.
    """

    name: str
    models: dict[str, ServedModel]
    order: tuple[str, ...] = ()

    def names_after(self, names: Sequence[str]) -> list[str]:
        """Return the names that are served after the change, in order, where these are before."""
        if not self.models:
            return [name for name in names if name != self.name]
        if self.name in names:
            return list(names)
        # A model that comes back is where it was: the first is the one that answers where none is named.
        later = self.order[self.order.index(self.name) + 1 :]
        place = next((index for index, name in enumerate(names) if name in later), len(names))
        return [*names[:place], self.name, *names[place:]]


class Models:
    """The served models by name and version.

    Args:
        settings: which models, on which device, with which limits.
        names: those of them that are served at first, in this order; None: all, of which there must be one.

    Raises:
        ModelNotFoundError: there is no model of a name in the settings or in `names`, or none at all. Where admins may
            load models that come later, settings may name those too.
        ModelPackageError: a model's package is damaged, or two have one name and version.
        DeviceError: the device cannot be used.

    Attributes:
        threads: where work that would hold up the event loop is run.
        draining: whether the server is about to stop.
    """

    def __init__(self, settings: Settings, names: Sequence[str] | None = None) -> None:
        self.draining = False
        self._settings = settings
        self._changing = asyncio.Lock()
        self.threads = Threads(settings.worker_threads)
        self._budget = PixelBudget(settings.max_total_pixels)
        self._models: dict[str, dict[str, ServedModel]] = {}
        found = self._find(names)
        if not found:
            raise ModelNotFoundError("there are no bundled models: name a package folder to serve")
        unknown = sorted(settings.per_model.keys() - found.keys())
        if unknown and names is None and not settings.keys_of_admins():
            raise ModelNotFoundError(f"per_model: there is no model {unknown[0]!r} to serve, only: {', '.join(found)}")
        for name in found if names is None else names:
            if name not in found:
                raise ModelNotFoundError(f"there is no package of the model {name!r} any more")
            self._models[name] = self._load(found[name])
            self._set_served(name, True)

    @property
    def ready(self) -> bool:
        """Whether new requests should come here."""
        return bool(self._models) and not self.draining

    @property
    def names(self) -> list[str]:
        """The names that are served, in this order."""
        return list(self._models)

    @property
    def default(self) -> str | None:
        """The name of the first model that is served, in the order of the sources; None where all were unloaded."""
        return next(iter(self._models), None)

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
        """Return a model, in its highest version where none is named.

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
        """Load, reload or unload a model, and return its versions that are served then.

        Raises:
            ModelNotServedError, ModelLoadError: as `prepare` does, and what was served still is.
        """
        async with self._changing:
            change = await self.prepare(name, action)
            self.apply(change)
        return tuple(change.models)

    async def prepare(self, name: str, action: Action) -> Change:
        """Return a change that can be applied at once: it holds what the sources now hold under that name, loaded.

        Raises:
            ModelNotServedError: no such model is served, or the sources hold none to load.
            ModelLoadError: it cannot be loaded.
        """
        if action != "load":
            self.versions(name)
        if action == "unload":
            return Change(name, {})
        try:
            found = await asyncio.to_thread(self._find, [name])
            if name not in found:
                raise ModelNotServedError(f"there is no package of a model {name!r} to load")
            return Change(name, await asyncio.to_thread(self._load, found[name]), tuple(found))
        except PdeinferError as error:
            logger.exception("%s cannot be loaded", name)
            message = f"{name!r} cannot be loaded, and is served as before; the server's log says why"
            raise ModelLoadError(message) from error

    def apply(self, change: Change) -> None:
        """Serve it; requests that hold what was served before are answered by that, and then its memory is free."""
        gc.unfreeze()  # a worker freezes what it has loaded first, which would stay for ever
        self._set_served(change.name, False)
        models = {**self._models, change.name: change.models}
        self._models = {name: models[name] for name in change.names_after(self.names)}
        self._set_served(change.name, True)
        logger.info("a model was changed", extra={"fields": {"model": change.name, "versions": list(change.models)}})

    def close(self) -> None:
        """Finish what runs."""
        self.threads.close()

    def _find(self, wanted: Sequence[str] | None) -> dict[str, dict[str, ModelPackage]]:
        """Return the packages that the sources hold, by name and version.

        A damaged package is an error, unless it cannot be one of the `wanted` models: these were found without it, and
        no version of them lies beside it.
        """
        found: dict[str, dict[str, ModelPackage]] = {}
        damaged: dict[Path, ModelPackageError] = {}
        for source in self._settings.models or zoo.names():
            for version, location in find_packages(source):
                try:
                    package = zoo.load(location)
                except ModelPackageError as error:
                    if wanted is None:
                        raise
                    damaged[Path(location)] = error
                    continue
                versions = found.setdefault(package.card.preset.name, {})
                if version in versions:
                    name = package.card.preset.name
                    raise ModelPackageError(f"two of the models to serve have the name {name!r} and version {version}")
                versions[version] = package
        for path, problem in damaged.items():
            for name in wanted or ():
                versions = found.get(name, {})
                if not versions or any(package.path == path.parent / number for number, package in versions.items()):
                    raise problem
            logger.warning("left alone: %s", problem)
        return found

    def _load(self, packages: dict[str, ModelPackage]) -> dict[str, ServedModel]:
        return {
            version: ServedModel(packages[version], version, self._settings, self.threads, self._budget)
            for version in sorted(packages, key=int)
        }

    def _set_served(self, name: str, is_served: bool) -> None:
        for model in self._models.get(name, {}).values():
            model.metrics.set_served(model.info.device, model.info.provider, is_served)
