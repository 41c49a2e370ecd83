"""The Kubernetes objects of deploy/, and the pod that they make, as far as directories are one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate
import yaml
from kubernetes_validate import utils

from gateway.settings import ENV_PREFIX
from gateway.sources import Loaded, load
from scamp import keys
from scamp.discovery import Action
from scamp.discovery.build import AnnouncementSpec, build_announcement, new_identity

ROOT: Final = Path(__file__).parents[2]
KUBERNETES: Final = ROOT / "deploy" / "kubernetes"
CHART: Final = ROOT / "deploy" / "helm" / "scamp-gateway"

OLDEST: Final = "1.29"
"""The first Kubernetes that starts sidecars by itself."""

VERSIONS: Final = (OLDEST, kubernetes_validate.latest_version())

Object = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """Takes nothing that a reader of YAML in the cluster could take otherwise, or not at all."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        made = super().construct_mapping(node, deep)
        if len(made) != len(node.value):
            keys = [self.construct_object(key) for key, _ in node.value]
            raise ValueError(f"twice: {sorted(key for key in keys if keys.count(key) > 1)}")
        return made

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        assert isinstance(node, yaml.ScalarNode)
        if node.style is None and node.tag.endswith(":str") and _NO_TEXT.fullmatch(node.value):
            raise ValueError(f"no text for Go, unless it is quoted: {node.value}")
        return super().construct_scalar(node)


_NO_TEXT: Final = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|0o[0-7]+|[yYnN]")


def parse(text: str) -> list[Object]:
    """Every object of a stream. Raises `ValueError` where a key is there twice, or a text is not
    quoted and means something else to Go's YAML than to Python's."""
    return [one for one in yaml.load_all(text, _Loader) if one]


def written() -> dict[str, Object]:
    """Objects as they lie in files, without what kustomize makes of them, by path."""
    return {
        f"{path.relative_to(KUBERNETES)}": one
        for path in sorted(KUBERNETES.rglob("*.yaml"))
        if path.name not in ("kustomization.yaml", "prometheus-adapter.yaml")
        and not path.name.endswith(".patch.yaml")
        for one in parse(path.read_text())
    }


def only(objects: list[Object], kind: str, name: str | None = None) -> Object:
    """The one of that kind, and name."""
    (found,) = (
        one for one in objects if one["kind"] == kind and name in (None, one["metadata"]["name"])
    )
    return found


def pod(deployment: Object) -> Object:
    spec: Object = deployment["spec"]["template"]["spec"]
    return spec


def gateway_of(deployment: Object) -> Object:
    """The container that serves."""
    (found,) = (one for one in pod(deployment)["containers"] if one["name"] == "gateway")
    assert isinstance(found, dict)
    return found


# -- schemas ----------------------------------------------------------------------------


def _strict(properties: Object, *required: str) -> Object:
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "required": list(required or properties),
    }


_TEXT: Final = {"type": "string", "minLength": 1}
_TEXTS: Final = {"type": "object", "additionalProperties": _TEXT}
_DURATION: Final = {"type": "string", "pattern": r"^(0|([0-9]+(ms|[smhdwy]))+)$"}

_RULE: Final = {
    "oneOf": [
        _strict({"record": _TEXT, "expr": _TEXT, "labels": _TEXTS}, "record", "expr"),
        _strict(
            {
                "alert": _TEXT,
                "expr": _TEXT,
                "for": _DURATION,
                "keep_firing_for": _DURATION,
                "labels": _TEXTS,
                "annotations": _TEXTS,
            },
            "alert",
            "expr",
        ),
    ]
}

# What we use of prometheus-operator's kinds (monitoring.coreos.com/v1), in its spelling.
_SPECS: Final = {
    "ServiceMonitor": _strict(
        {
            "jobLabel": _TEXT,
            "selector": _strict({"matchLabels": _TEXTS}),
            "endpoints": {
                "type": "array",
                "minItems": 1,
                "items": _strict(
                    {
                        "port": _TEXT,
                        "path": {"type": "string", "pattern": "^/"},
                        "interval": _DURATION,
                        "scrapeTimeout": _DURATION,
                    }
                ),
            },
        }
    ),
    "PrometheusRule": _strict(
        {
            "groups": {
                "type": "array",
                "minItems": 1,
                "items": _strict(
                    {
                        "name": _TEXT,
                        "interval": _DURATION,
                        "rules": {"type": "array", "minItems": 1, "items": _RULE},
                    },
                    "name",
                    "rules",
                ),
            }
        }
    ),
}


# It would read megabytes for each object.
utils.schema_contents = lru_cache(utils.schema_contents)


def complaint(one: Object, version: str) -> str | None:
    """Why that Kubernetes would not take the object; unknown fields are a reason."""
    try:
        if one["apiVersion"] == "monitoring.coreos.com/v1":
            jsonschema.validate(one["spec"], _SPECS[one["kind"]])
            meta = {key: value for key, value in one.items() if key != "spec"}
            one = {**meta, "apiVersion": "v1", "kind": "ConfigMap"}
        kubernetes_validate.validate(one, version, strict=True)
    except jsonschema.ValidationError as exc:
        return f"{one['kind']}.{'.'.join(str(part) for part in exc.absolute_path)}: {exc.message}"
    return None


# -- a pod ------------------------------------------------------------------------------


class Pod:
    """What a container sees, below `folder`: directories where volumes are mounted. Containers with
    the same `folder` share them."""

    def __init__(self, container: Object, folder: Path) -> None:
        self.container = container
        self.folder = folder
        self.mounts: dict[str, Path] = {}
        self._places: list[str] = []
        for mount in self.container["volumeMounts"]:
            here = folder / mount["mountPath"].lstrip("/")
            here.mkdir(parents=True, exist_ok=True)
            self.mounts[mount["name"]] = here
            self._places.append(mount["mountPath"])

    def here(self, text: str) -> str:
        """With every path below a mount as it is for us."""
        places = "|".join(re.escape(place) for place in self._places)
        return re.sub(rf"(?<![\w/])(?=(?:{places})(?:/|\b))", str(self.folder), text)

    def project(self, volume: str, files: Mapping[str, str | bytes]) -> None:
        """The content of a ConfigMap or Secret, as the kubelet writes it: a link to a directory is
        replaced, so that all files change at once, and none of them by itself."""
        mount = self.mounts[volume]
        number = sum(one.name.startswith("..2") for one in mount.iterdir())
        content = mount / f"..2026_{number}"
        content.mkdir()
        for name, text in files.items():
            data = text.encode() if isinstance(text, str) else text
            (content / name).write_bytes(data)
            if not (mount / name).is_symlink():
                (mount / name).symlink_to(f"..data/{name}")
        new = mount / "..data_tmp"
        new.symlink_to(content.name)
        os.replace(new, mount / "..data")

    def configure(self, files: Mapping[str, str]) -> None:
        """The ConfigMap with the settings."""
        self.project("config", {name: self.here(text) for name, text in files.items()})

    @property
    def arguments(self) -> list[str]:
        return [self.here(one) for one in self.container["args"]]

    @property
    def environment(self) -> dict[str, str]:
        return {one["name"]: self.here(one["value"]) for one in self.container.get("env", ())}

    @property
    def config(self) -> Path:
        return self.mounts["config"] / "gateway.toml"


class Mesh:
    """What else the cluster gives the pod: keys, and one service in `record` that may be there."""

    def __init__(self) -> None:
        now = datetime.now(UTC)
        self.private, self.certificate = keys.generate("auth", now=now)
        key, certificate = keys.generate("shop", now=now)
        self.authorized = f"{keys.fingerprint(certificate)} main:ALL\n"
        spec = AnnouncementSpec(
            identity=new_identity("shop"),
            sector="main",
            weight=1,
            interval=5.0,
            uri="beepish+tls://10.0.0.5:30100",
            envelopes=("json",),
            actions=(Action("main", "Shop", "buy", 1, (), ("json",)),),
        )
        self.record = build_announcement(
            spec, keys.load_private_key(key), certificate, timestamp=now.timestamp()
        )

    def fill(self, pod: Pod, config: Mapping[str, str]) -> None:
        """Every volume that is given by reference, and the ConfigMap."""
        pod.configure(config)
        pod.project("mesh", {"authorized_services": self.authorized})
        pod.project("ticket-keys", {"ticket.pem": keys.public_key_pem(self.private)})
        if "tls" in pod.mounts:
            pod.project("tls", {"tls.crt": self.certificate, "tls.key": self.private})


def settings_of(container: Object, toml: Path) -> Loaded:
    """What is in force in the container with that gateway.toml. The environment is that of the
    test: it has to be without settings of ours."""
    assert not [name for name in os.environ if name.startswith(ENV_PREFIX)]
    ours = {one["name"]: one["value"] for one in container["env"]}
    os.environ.update(ours)
    try:
        return load(config=toml)
    finally:
        for name in ours:
            del os.environ[name]


def texts(one: Any) -> Iterator[str]:
    """Every text in an object, keys too."""
    if isinstance(one, str):
        yield one
    elif isinstance(one, dict):
        for key, value in one.items():
            yield from texts(key)
            yield from texts(value)
    elif isinstance(one, list):
        for value in one:
            yield from texts(value)
