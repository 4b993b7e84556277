"""Files of the Fetch robot from the package gymnasium-robotics, which is not imported.

Its own environments do not work with MuJoCo 3.12 and later; its MJCF files and meshes do.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

_PACKAGE = "gymnasium_robotics"
_ADVICE = "Install it by the extra fetch: pip install 'genesis_rl[fetch]'"


def find_assets() -> Path:
    """Return the folder ``assets`` of gymnasium-robotics.

    Raises:
        ImportError: if gymnasium-robotics is not installed, or contains no Fetch robot.
    """
    spec = find_spec(_PACKAGE)  # a top-level name: nothing is imported
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        folder = Path(place) / "envs" / "assets"
        if (folder / "fetch" / "robot.xml").is_file():
            return folder
    found = "it is not installed" if spec is None else f"{spec.origin} contains no Fetch robot"
    raise ImportError(
        f"gymnasium-robotics must be installed for the robot's meshes, got: {found}. {_ADVICE}."
    )


@cache
def robot_files() -> dict[str, bytes]:
    """Return the robot's MJCF files and meshes by name: ``robot.xml``, ``shared.xml``, STL files.

    In ``shared.xml`` the texture of Fetch's own block is removed, and the gripper is welded to the
    mocap body at the same pose.

    Raises:
        ImportError: if gymnasium-robotics is not installed, or some of its files are missing.
    """
    folder = find_assets()
    try:
        shared = ElementTree.parse(folder / "fetch" / "shared.xml").getroot()
        files = {path.name: path.read_bytes() for path in (folder / "stls/fetch").glob("*.stl")}
        files["robot.xml"] = (folder / "fetch" / "robot.xml").read_bytes()
    except (OSError, ElementTree.ParseError) as error:
        raise ImportError(
            f"{folder} must contain the Fetch robot, got: {error}. {_ADVICE}."
        ) from None
    for asset in shared.iter("asset"):
        for texture in asset.findall("texture[@file]"):
            asset.remove(texture)
    for weld in shared.iter("weld"):
        weld.set("relpose", "0 0 0 1 0 0 0")
    files["shared.xml"] = ElementTree.tostring(shared)
    return files
