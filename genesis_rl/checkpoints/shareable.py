"""Base class with methods for saving, loading and sharing a model."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, Unpack, cast

import torch
from torch import nn

from genesis_rl.checkpoints.hub import DownloadOptions, PushOptions, push_folder
from genesis_rl.checkpoints.weights import read_model, write_model
from genesis_rl.perception.preprocessing import Preprocessing


class Shareable(nn.Module):
    """Module with ``save_pretrained``, ``from_pretrained`` and ``push_to_hub``.

    Attributes:
        model_name: identifier of the class in config.json, unique per class.
        config_class: class of its config.
        preprocessing: resizing of frames to the model's size, from the loaded config.json; None for
            a model that was not loaded.
    """

    model_name: ClassVar[str]
    config_class: ClassVar[type[Any]]
    config: Any
    preprocessing: Preprocessing | None = None

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        preprocessing: Preprocessing | None = None,
        extra: Mapping[str, Any] | None = None,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        **options: Unpack[PushOptions],
    ) -> str | None:
        """Save weights and config to a folder; see `genesis_rl.checkpoints.weights.write_model`.

        Args:
            save_directory: the folder, created if missing; other files in it are kept.
            preprocessing: see `write_model`.
            extra: see `write_model`.
            push_to_hub: also upload them to the Hub.
            repo_id: Hub id, "owner/name"; required by ``push_to_hub``.
            **options: see `push_to_hub`.

        Returns:
            The commit's URL if pushed, else None.

        Raises:
            ValueError: if the class has no ``model_name`` of its own, or the push fails.
            OSError: if the folder cannot be written.
        """
        if push_to_hub and repo_id is None:
            raise ValueError("repo_id must be 'owner/name' with push_to_hub, got None.")
        self._write(save_directory, preprocessing, extra)
        if not push_to_hub or repo_id is None:
            return None
        return self.push_to_hub(repo_id, preprocessing=preprocessing, extra=extra, **options)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        device: str | torch.device = "auto",
        **options: Unpack[DownloadOptions],
    ) -> Self:
        """Load a model of this class.

        See `genesis_rl.checkpoints.loading.load`, which loads models of any class, for arguments
        and errors.
        """
        classes = {cls._own_name(): (cls.config_class, cls)}
        loaded = read_model(pretrained_model_name_or_path, classes, device=device, **options)
        return cast("Self", loaded.model)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        preprocessing: Preprocessing | None = None,
        extra: Mapping[str, Any] | None = None,
        **options: Unpack[PushOptions],
    ) -> str:
        """Upload weights and config; a model card in the repository is kept.

        Args:
            repo_id: the repository, "owner/name", created if missing.
            preprocessing: see `write_model`.
            extra: see `write_model`.
            **options: commit_message, private, token, branch and create_pr, as in
                `huggingface_hub.PyTorchModelHubMixin.push_to_hub`.

        Returns:
            The commit's URL.

        Raises:
            ValueError: if the class has no ``model_name`` of its own, or the push fails.
        """
        with tempfile.TemporaryDirectory() as folder:
            self._write(folder, preprocessing, extra)
            return push_folder(Path(folder), repo_id, **options)

    def _write(
        self,
        folder: str | os.PathLike[str],
        preprocessing: Preprocessing | None,
        extra: Mapping[str, Any] | None,
    ) -> None:
        name = self._own_name()
        write_model(self, folder, name=name, preprocessing=preprocessing, extra=extra)

    @classmethod
    def _own_name(cls) -> str:
        """Return the class's own ``model_name``; an inherited one identifies another class."""
        name: str | None = vars(cls).get("model_name")
        if name is None:
            raise ValueError(
                f"{cls.__name__} must define a model_name and a config_class of its own. To load "
                "a model of any class, use genesis_rl.load."
            )
        return name
