"""The served models by name and version, and how they are loaded and unloaded."""

import asyncio
import logging
from collections.abc import Iterator

from pdeinfer import ModelNotFoundError, ModelPackageError, PdeinferError, zoo
from pdeinfer.package import ModelPackage
from serving.errors import ApiError
from serving.served_model import ServedModel
from serving.settings import Settings
from serving.sources import find_packages
from serving.threads import Threads

__all__ = ["Models", "ServedModel"]

logger = logging.getLogger(__name__)


class Models:
    """The served models by name and version.

    Args:
        settings: which models, on which device, with which limits.

    Raises:
        ModelNotFoundError: there is no model of a name in the settings, or none at all.
        ModelPackageError: a model's package is damaged, or two have one name and version.
        DeviceError: the device cannot be used.

    Attributes:
        threads: where work that would hold up the event loop is run.
        draining: whether the server is about to stop.
    """

    def __init__(self, settings: Settings) -> None:
        self.draining = False
        self._settings = settings
        self._changing = asyncio.Lock()
        self.threads = Threads(settings.worker_threads)
        self._models: dict[str, dict[str, ServedModel]] = {}
        for name, packages in self._find().items():
            self._models[name] = self._load(packages)
            self._set_served(name, True)
        if not self._models:
            raise ModelNotFoundError("there are no bundled models: name a package folder to serve")

    @property
    def ready(self) -> bool:
        """Whether new requests should come here."""
        return bool(self._models) and not self.draining

    @property
    def default(self) -> str | None:
        """The name of the model that was named first; None where all were unloaded."""
        return next(iter(self._models), None)

    def __iter__(self) -> Iterator[ServedModel]:
        """Every version of every model, the highest version of each first."""
        for name in self._models:
            for version in reversed(self.versions(name)):
                yield self._models[name][version]

    def versions(self, name: str) -> tuple[str, ...]:
        """Return the served versions of a model, lowest first.

        Raises:
            ApiError: 404, no model of that name is served.
        """
        if name not in self._models:
            served = ", ".join(self._models) or "none"
            raise ApiError(404, "model_not_found", f"no model {name!r} is served, only: {served}")
        return tuple(sorted(self._models[name], key=int))

    def get(self, name: str, version: str | None = None) -> ServedModel:
        """Return a model, in its highest version where none is named.

        Raises:
            ApiError: 404, no such model or no such version is served.
        """
        versions = self.versions(name)
        if version is None:
            version = versions[-1]
        if version not in versions:
            message = f"no version {version!r} of {name!r} is served, only: {', '.join(versions)}"
            raise ApiError(404, "version_not_found", message)
        return self._models[name][version]

    async def load(self, name: str) -> None:
        """Serve what the sources now hold under a name, in place of what was served under it; no request is dropped.

        Raises:
            ApiError: 404, the sources hold no such model; 422, it cannot be loaded, and what was served still is.
        """
        async with self._changing:
            try:
                packages = (await asyncio.to_thread(self._find)).get(name)
                if packages is None:
                    raise ApiError(404, "model_not_found", f"there is no package of a model {name!r} to load")
                models = await asyncio.to_thread(self._load, packages)
            except PdeinferError as error:
                logger.exception("%s cannot be loaded", name)
                message = f"{name!r} cannot be loaded, and is served as before; the server's log says why"
                raise ApiError(422, "model_load_failed", message) from error
            self._set_served(name, False)
            self._models[name] = models
            self._set_served(name, True)

    async def unload(self, name: str) -> None:
        """Serve a model no longer; requests that have it are answered, and then its memory is free.

        Raises:
            ApiError: 404, no model of that name is served.
        """
        async with self._changing:
            self.versions(name)
            self._set_served(name, False)
            del self._models[name]

    def close(self) -> None:
        """Finish what runs."""
        self.threads.close()

    def _find(self) -> dict[str, dict[str, ModelPackage]]:
        """Return the packages that the sources hold, by name and version."""
        found: dict[str, dict[str, ModelPackage]] = {}
        for source in self._settings.models or zoo.names():
            for version, package in find_packages(source):
                versions = found.setdefault(package.card.preset.name, {})
                if version in versions:
                    name = package.card.preset.name
                    raise ModelPackageError(f"two of the models to serve have the name {name!r} and version {version}")
                versions[version] = package
        return found

    def _load(self, packages: dict[str, ModelPackage]) -> dict[str, ServedModel]:
        return {
            version: ServedModel(package, version, self._settings, self.threads)
            for version, package in packages.items()
        }

    def _set_served(self, name: str, is_served: bool) -> None:
        for model in self._models.get(name, {}).values():
            model.metrics.set_served(model.info.device, model.info.provider, is_served)
