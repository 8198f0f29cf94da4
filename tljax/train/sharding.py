"""Where arrays live: one mesh, and rules from a leaf's path to its axes.

Mesh axes run, data, fsdp, tensor are always there, of size 1 where unused: the same
code runs on a laptop and on a pod. The first rule that matches wins; a leaf without a
rule, and a rule without a leaf, are errors.
"""

import dataclasses
import re

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tljax.model.attention import head_width
from tljax.settings import InputError, MeshSettings, ModelSettings

AXES = ("run", "data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))
_INWARD = r"layers/\d+/(attention/(query|key|value)|mlp/(up|gate))"
_OUTWARD = r"layers/\d+/(attention/output|mlp/down)"
_BIAS = {
    "attention/(query|key|value)": PartitionSpec("tensor"),
    "attention/output": PartitionSpec(),
    "mlp/(up|gate)": PartitionSpec("tensor"),
    "mlp/down": PartitionSpec(),
}
_BIASED = {
    "none": (),
    "qkv": tuple(_BIAS)[:1],
    "attention": tuple(_BIAS)[:2],
    "mlp": tuple(_BIAS)[2:],
    "all": tuple(_BIAS),
}


def make_mesh(settings: MeshSettings) -> jax.sharding.Mesh:
    """The mesh over as many devices as the settings ask for.

    Raises:
      InputError: more devices asked for than there are.
    """
    shape = tuple(getattr(settings, axis) for axis in AXES)
    wanted = 1
    for size in shape:
        wanted *= size
    devices = jax.devices()
    if wanted > len(devices):
        asked = ", ".join(f"{axis}={getattr(settings, axis)}" for axis in AXES)
        raise InputError(
            f"mesh asks for {wanted} devices ({asked}), there are"
            f" {len(devices)}; make the product of the axes at most {len(devices)}"
        )
    return jax.make_mesh(
        shape, AXES, axis_types=(AxisType.Auto,) * 4, devices=devices[:wanted]
    )


def check_sizes(model: ModelSettings, mesh: MeshSettings, vocab_size: int) -> None:
    """Raises InputError where a sharded axis is not divisible by its mesh axis."""
    sizes = {
        "model.width": model.width,
        "model.mlp_width": model.mlp_width,
        "tokenizer.vocab_size": vocab_size,
        "key and value width": head_width(model) * model.kv_heads,
        "query width": head_width(model) * model.heads,
    }
    for name, size in sizes.items():
        for axis in ("fsdp", "tensor"):
            if size % getattr(mesh, axis):
                raise InputError(
                    f"{name}={size} is not divisible by"
                    f" mesh.{axis}={getattr(mesh, axis)}"
                )


def check_batch(rows: int, mesh: MeshSettings, name: str) -> None:
    """Raises InputError where the rows of a batch do not divide over the mesh."""
    ways = mesh.data * mesh.fsdp
    if rows % ways:
        raise InputError(
            f"{name}={rows} is not divisible by mesh.data x mesh.fsdp"
            f" = {ways}; take a multiple of {ways}"
        )


def rules(model: ModelSettings, *, classifier: bool) -> list[tuple[str, PartitionSpec]]:
    """The rules for the parameters that these settings make, most special first."""
    made = [
        ("embedding/tokens", PartitionSpec("tensor", "fsdp")),
        (f"{_INWARD}/kernel", PartitionSpec("fsdp", "tensor")),
        (f"{_OUTWARD}/kernel", PartitionSpec("tensor", "fsdp")),
        (r"\w+norm/scale", PartitionSpec()),
    ]
    if model.norm == "layer":
        made.append((r"\w+norm/bias", PartitionSpec()))
    for name, there in (
        ("positions", model.positions == "learned"),
        ("types", model.token_types),
    ):
        if there:
            made.append((f"embedding/{name}", PartitionSpec(None, "fsdp")))
    if not model.tied:
        made.append(("output/kernel", PartitionSpec("tensor", "fsdp")))
    made += [(f"{layer}/bias", _BIAS[layer]) for layer in _BIASED[model.bias]]
    if classifier:
        made.append(("head/(kernel|bias)", PartitionSpec()))
    # `output/kernel` of the vocabulary would also match the attention's own
    return sorted(made, key=lambda rule: -len(rule[0]))


@dataclasses.dataclass(frozen=True)
class Placement:
    """A mesh and the rules that spread a tree over it."""

    mesh: jax.sharding.Mesh
    rules: list[tuple[str, PartitionSpec]]

    def spec(self, path: str) -> PartitionSpec:
        """The axes of the parameter at 'layers/0/...'; KeyError if no rule matches."""
        for pattern, spec in self.rules:
            if re.search(f"(^|/){pattern}$", path):
                return spec
        raise KeyError(f"no sharding rule matches {path}")

    def params(self, tree: dict) -> dict:
        """A NamedSharding for every parameter.

        Raises:
          KeyError: a leaf matches no rule, or a rule no leaf.
        """
        used = set()

        def place(path, leaf):
            name = "/".join(str(entry.key) for entry in path)
            for pattern, spec in self.rules:
                if re.search(f"(^|/){pattern}$", name):
                    used.add(pattern)
                    return NamedSharding(self.mesh, spec)
            raise KeyError(f"no sharding rule matches {name}")

        placed = jax.tree_util.tree_map_with_path(place, tree)
        unused = [pattern for pattern, _ in self.rules if pattern not in used]
        if unused:
            raise KeyError(f"sharding rules match no parameter: {', '.join(unused)}")
        return placed

    def optimizer(self, tree) -> object:
        """A NamedSharding for every leaf of an optimizer state.

        Moments lie as their parameters do; stacks of matrices (Muon) and counts have
        rules of their own.
        """

        def place(path, leaf):
            keys = [str(entry.key) for entry in path if hasattr(entry, "key")]
            if leaf.ndim == 0 or not keys or leaf.size < 16:
                return NamedSharding(self.mesh, PartitionSpec())
            if re.fullmatch(r"\d+x\d+", keys[-1]):
                return NamedSharding(self.mesh, PartitionSpec(None, "fsdp", "tensor"))
            start = next(i for i, key in enumerate(keys) if key in _ROOTS)
            return NamedSharding(self.mesh, self.spec("/".join(keys[start:])))

        return jax.tree_util.tree_map_with_path(place, tree)

    def lifted(self, shardings) -> object:
        """The same, for leaves that have got the axis S of a population in front."""
        return jax.tree.map(
            lambda one: NamedSharding(self.mesh, PartitionSpec("run", *one.spec)),
            shardings,
        )

    def everywhere(self) -> NamedSharding:
        """A copy on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def batch(self) -> NamedSharding:
        """Rows spread over the data and fsdp axes."""
        return NamedSharding(self.mesh, BATCH)


_ROOTS = ("embedding", "embedding_norm", "layers", "final_norm", "output", "head")
