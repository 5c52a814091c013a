"""Names of the linear layers of a decoder block, grouped by the input they read. No torch."""

from __future__ import annotations

from copal_core.errors import InvalidValueError

# Projections that read the same input form one group and share its statistics.
GROUPS: dict[str, tuple[str, ...]] = {
    "attention_input": ("q_proj", "k_proj", "v_proj"),
    "attention_output": ("o_proj",),
    "mlp_input": ("gate_proj", "up_proj"),
    "mlp_output": ("down_proj",),
}
PROJECTIONS: tuple[str, ...] = tuple(name for names in GROUPS.values() for name in names)
GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}


def module_name(block: int, projection: str) -> str:
    """Return the projection's path in a LLaMA model, such as 'model.layers.0.self_attn.q_proj'."""
    part = "self_attn" if GROUP_OF[projection].startswith("attention") else "mlp"
    return f"model.layers.{block}.{part}.{projection}"


def module_names(blocks: int) -> list[str]:
    """Return the paths of all projections of the model, block by block."""
    return [module_name(block, projection) for block in range(blocks) for projection in PROJECTIONS]


def place_of(name: str) -> tuple[int, str]:
    """Return block and projection of a path: the inverse of `module_name`. Raises InvalidValueError otherwise."""
    parts = name.split(".")
    if (
        len(parts) != 5
        or parts[:2] != ["model", "layers"]
        or not parts[2].isdigit()
        or parts[4] not in GROUP_OF
    ):
        raise InvalidValueError(f"'{name}' is no projection of a decoder block")
    return int(parts[2]), parts[4]
