"""Creation of environments from an id, options and wrappers, as given on the command line."""

import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator

from genesis_rl.utils.checks import parse_object
from genesis_rl.utils.process import choose_opengl

# Packages that register environments; safe to import if installed.
_KNOWN_PACKAGES = (
    "ale_py",
    "gymnasium",
    "gymnasium_robotics",
    "highway_env",
    "metaworld",
    "minigrid",
    "miniworld",
    "panda_gym",
)
_INSTALLED = ("site-packages", "dist-packages")
# Plain words: neither paths nor names of modules or their attributes.
_WORD = re.compile(r"[\w -]*")


def parse_options(text: str) -> dict[str, Any]:
    """Parse the options of an environment.

    Args:
        text: a JSON object.

    Raises:
        ValueError: if it is not a JSON object, or contains id or render_mode.
    """
    options = parse_object("env_options", text)
    reserved = {"id", "render_mode"} & options.keys()
    if reserved:
        raise ValueError(
            "env_options must not contain id or render_mode (--env and --render set these), got"
            f" {text!r}."
        )
    return options


def check_wrappers(wrappers: Sequence[str]) -> None:
    """Check that wrappers have the form module:Class.

    Raises:
        ValueError: naming the wrapper.
    """
    for name in wrappers:
        if not all(name.partition(":")):
            raise ValueError(
                "wrappers must be module:Class, e.g. minigrid.wrappers:RGBImgPartialObsWrapper,"
                f" got {name!r}."
            )


def check_imports(
    env_id: str, options: Mapping[str, Any], wrappers: Sequence[str], *, source: Path
) -> str:
    """Check that making an environment described by a file imports no untrusted code.

    Accepted: ids registered with Gymnasium in this process, modules and wrappers of a few
    well-known installed packages, and options that are numbers and plain words.

    Args:
        env_id: id of the environment.
        options: options for `gymnasium.make`.
        wrappers: wrappers, module:Class.
        source: the file, for the message.

    Returns:
        The id, without its module if the environment is registered already.

    Raises:
        ValueError: listing the modules and files that would be imported or read.
    """
    module, _, name = env_id.rpartition(":")
    untrusted = []
    if module and module not in sys.modules and not _is_known(module):
        if name in gym.registry:
            env_id = name
        else:
            untrusted.append(f"env {env_id!r}")
    untrusted += [f"wrappers {wrapper!r}" for wrapper in wrappers if not _is_known_wrapper(wrapper)]
    untrusted += [
        f"env_options {path} {text!r}"
        for path, text in _strings(options)
        if not _WORD.fullmatch(text) or _is_local(text)
    ]
    if untrusted:
        raise ValueError(
            f"trust_remote_code must be True to import or read the names in {source}, got False: "
            f"{', '.join(untrusted)}. Read the file; if you trust its author, pass "
            "trust_remote_code=True."
        )
    return env_id


def _is_known(package: str) -> bool:
    """Whether a name is a well-known package that is installed, not a local module."""
    if package not in _KNOWN_PACKAGES:
        return False
    spec = find_spec(package)
    return spec is not None and any(part in Path(str(spec.origin)).parts for part in _INSTALLED)


def _is_known_wrapper(wrapper: str) -> bool:
    module, _, attribute = wrapper.partition(":")
    if not module.endswith(".wrappers") or not _is_known(module.removesuffix(".wrappers")):
        return False
    wrapper_class = getattr(import_module(module), attribute, None)
    return isinstance(wrapper_class, type) and issubclass(wrapper_class, gym.Wrapper)


def _is_local(text: str) -> bool:
    """Whether a word is the name of a file, folder or module in the working directory."""
    return bool(text) and any(os.path.lexists(text + suffix) for suffix in ("", ".py"))


def _strings(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the path and value of every string and key in JSON data."""
    stack: list[tuple[str, Any]] = [("", dict(options))]
    while stack:  # not recursive, because the data may be deeply nested
        path, value = stack.pop()
        if isinstance(value, str):
            yield path, value
        elif isinstance(value, dict):
            yield from ((path, name) for name in value if not _WORD.fullmatch(name))
            stack += [(f"{path}.{name}".lstrip("."), entry) for name, entry in value.items()]
        elif isinstance(value, list):
            stack += [(path, entry) for entry in value]


def _add_working_directory(module: str) -> None:
    """Append the working directory to Python's path if a module is found only there."""
    package = module.partition(".")[0]
    folder = os.getcwd()
    if not package or package in sys.modules or folder in sys.path or find_spec(package):
        return
    if any(os.path.exists(os.path.join(folder, package + suffix)) for suffix in ("", ".py")):
        sys.path.append(folder)


def accepts_option(env_id: str, option: str, value: str) -> bool:
    """Return whether a registered environment has an option, and the value is not excluded.

    A value is excluded by an option whose type is a `Literal` without it. A constructor with
    ``**options`` has those of its base class.
    """
    module, _, name = env_id.rpartition(":")
    try:
        _add_working_directory(module)
        if module:
            import_module(module)
        entry_point = gym.spec(name).entry_point
        creator: Any = (
            load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
        )
        classes = creator.__mro__ if isinstance(creator, type) else ()
        functions = [vars(cls)["__init__"] for cls in classes if "__init__" in vars(cls)]
        for function in functions or [creator]:
            parameters = inspect.signature(function).parameters
            if option in parameters:
                hint = get_type_hints(function).get(option)
                return get_origin(hint) is not Literal or value in get_args(hint)
            if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
                return False
        return False
    except Exception:  # no such environment, or any error of its module: `make_env` reports it
        return False


def make_env(
    env_id: str, options: Mapping[str, Any], wrappers: Sequence[str] = ()
) -> gym.Env[Any, Any]:
    """Make an environment.

    Modules of the working directory are found: it is appended to Python's path if a module is only
    there. Without a display MuJoCo renders with EGL, unless MUJOCO_GL is set.

    Args:
        env_id: id of a registered environment; module:id imports the module first.
        options: options for `gymnasium.make`.
        wrappers: module:Class of wrappers with the environment as only argument, innermost first.

    Raises:
        ValueError: if the environment cannot be created; contains the reason.
    """
    choose_opengl()
    modules = (env_id.rpartition(":")[0], *(name.partition(":")[0] for name in wrappers))
    try:
        for module in modules:
            _add_working_directory(module)
        env: gym.Env[Any, Any] = gym.make(env_id, **options)
        for name in wrappers:
            module, _, attribute = name.partition(":")
            env = getattr(import_module(module), attribute)(env)
    except Exception as error:  # any error of the environment's own code
        reason = " ".join(str(error).split())
        raise ValueError(
            f"env {env_id!r} cannot be made: {type(error).__name__}: {reason}"
        ) from error
    return env
