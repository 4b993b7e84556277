"""Environments by id, options and wrappers, as command lines name them."""

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, cast

import gymnasium as gym


def parse_options(text: str) -> dict[str, Any]:
    """Read an environment's options.

    Args:
        text: a JSON object.

    Raises:
        ValueError: if it is none, or names what has a flag of its own.
    """
    try:
        options = json.loads(text)
    except ValueError as error:
        raise ValueError(f"env_options is {text!r}, which is not JSON: {error}") from error
    if not isinstance(options, dict):
        raise ValueError(f"env_options is {text!r}; wanted a JSON object.")
    taken = {"id", "render_mode"} & options.keys()
    if taken:
        raise ValueError(f"env_options has {sorted(taken)}; wanted the flags env and render.")
    return cast("dict[str, Any]", options)


def check_wrappers(wrappers: Sequence[str]) -> None:
    """Refuse names of another form than module:Class.

    Raises:
        ValueError: naming the wrapper.
    """
    for name in wrappers:
        if not all(name.partition(":")):
            raise ValueError(
                f"wrappers has {name!r}; wanted module:Class, e.g."
                " minigrid.wrappers:RGBImgPartialObsWrapper."
            )


def make_env(
    env_id: str, options: Mapping[str, Any], wrappers: Sequence[str] = ()
) -> gym.Env[Any, Any]:
    """Make an environment.

    Args:
        env_id: of a registered environment; module:id imports the module first.
        options: for `gymnasium.make`.
        wrappers: module:Class of wrappers that take the environment alone, from the inside out.

    Raises:
        ValueError: if it cannot be made; says why.
    """
    try:
        env: gym.Env[Any, Any] = gym.make(env_id, **options)
        for name in wrappers:
            module, _, attribute = name.partition(":")
            env = getattr(import_module(module), attribute)(env)
    except Exception as error:  # whatever the environment's own code raises
        reason = " ".join(str(error).split())
        raise ValueError(
            f"env {env_id!r} cannot be made: {type(error).__name__}: {reason}"
        ) from error
    return env
