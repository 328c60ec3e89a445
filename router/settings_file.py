"""The settings file: YAML with the environment's names in any case, each with one value or a flat list.

Values are taken as they are written, before YAML gives them types: `no`, `1:30` and `0123` mean here what they mean in
the environment. Unknown names are errors, so a typo cannot change behaviour silently.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

import yaml

from router.declarations import SETTINGS, UNUSED_NAMES

FILE_BYTES_MAX = 1024 * 1024
NULL = "tag:yaml.org,2002:null"


def read_settings_file(path: Path) -> dict[str, str | tuple[str, ...]]:
    """Read the file into names in capitals and their texts; `ValueError` with one line for what is wrong in it."""
    try:
        text = path.read_bytes()[:FILE_BYTES_MAX].decode()
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"is not YAML: {error.problem}{line}") from None
    except yaml.YAMLError:
        raise ValueError("is not YAML: it holds characters that YAML forbids") from None
    if root is None or root.tag == NULL:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise ValueError("expected settings as `NAME: value` lines")
    return _entries(root)


def _entries(root: yaml.MappingNode) -> dict[str, str | tuple[str, ...]]:
    known = {name for setting in SETTINGS for name in setting.names} | UNUSED_NAMES
    entries: dict[str, str | tuple[str, ...]] = {}
    for key, value in root.value:
        line = key.start_mark.line + 1
        name = key.value.upper() if isinstance(key, yaml.ScalarNode) else "?"
        if name not in known:
            nearest = get_close_matches(name, sorted(known), n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise ValueError(f"{ascii(name)[1:-1]} in line {line} is not a setting{hint}")
        if name in entries:
            raise ValueError(f"{name} stands twice, again in line {line}")
        entries[name] = _text(name, value)
    return entries


def _text(name: str, node: yaml.Node) -> str | tuple[str, ...]:
    if isinstance(node, yaml.ScalarNode):
        return "" if node.tag == NULL else str(node.value)
    if isinstance(node, yaml.SequenceNode) and all(isinstance(item, yaml.ScalarNode) for item in node.value):
        return tuple(str(item.value) for item in node.value)
    raise ValueError(f"{name}: expected one value or a flat list")
