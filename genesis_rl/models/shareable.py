"""Saving, loading and sharing a model by methods of its own."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, Unpack, cast

import torch
from torch import nn

from genesis_rl.frames import Preprocessing
from genesis_rl.hub import DownloadOptions, PushOptions, push_folder
from genesis_rl.weights import read_model, write_model


class Shareable(nn.Module):
    """``save_pretrained``, ``from_pretrained`` and ``push_to_hub``, as huggingface_hub has them.

    Attributes:
        model_name: what config.json calls the class; every class needs one of its own.
        config_class: the class of its config.
        preprocessing: how frames are brought to its size, as it was loaded; None for a model that
            was built here.
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
        """Write the weights and the config into a folder; see `genesis_rl.weights.write_model`.

        Args:
            save_directory: the folder, made if missing; its other files are left alone.
            preprocessing: how frames are brought to the model's size; by default as it was loaded,
                and else stretched.
            extra: more JSON data for config.json.
            push_to_hub: upload them, too.
            repo_id: where to, "owner/name"; needed to push.
            **options: see `push_to_hub`.

        Returns:
            The commit's address if pushed, else None.

        Raises:
            ValueError: if the class has no name of its own, or the push fails.
            OSError: if the folder cannot be written.
        """
        if push_to_hub and repo_id is None:
            raise ValueError("push_to_hub needs a repo_id, 'owner/name'.")
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

        Args:
            pretrained_model_name_or_path: a folder of `save_pretrained`; a run of
                pretrain/train.py, whose best checkpoint is taken; or a Hub id, "owner/name".
            device: "auto" takes a GPU if there is one.
            **options: revision, token, cache_dir, force_download and local_files_only, for the Hub.

        Returns:
            The model in eval mode.

        Raises:
            ValueError: if nothing lies there, it is damaged, or a model of another class.
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
        """Upload the weights and the config; a model card there is left alone.

        Args:
            repo_id: the repository, "owner/name", made if missing.
            preprocessing: see `save_pretrained`.
            extra: see `save_pretrained`.
            **options: commit_message, private, token, branch and create_pr, as of
                `huggingface_hub.PyTorchModelHubMixin.push_to_hub`.

        Returns:
            The commit's address.

        Raises:
            ValueError: if the class has no name of its own, or the Hub refuses.
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
        """The class's name; one that it inherits would load it as another class."""
        name: str | None = vars(cls).get("model_name")
        if name is None:
            raise ValueError(
                f"{cls.__name__} has no model_name of its own; load any model with "
                "genesis_rl.load, or give a class of your own a model_name and a config_class."
            )
        return name
