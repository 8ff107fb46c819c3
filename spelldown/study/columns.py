"""A recipe in the words of the seed's ablation table."""

from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = (
    "listener", "blocks", "sizes", "teacher forcing", "batch", "weight decay", "rate", "data",
)  # fmt: skip
"""What the seed's table said of each row, in its order."""

NAMES = {"bilstm": "BiLSTM", "conv": "conv", "mobile": "mobile", "pyramid": "pyramid"}


def setup(recipe: Mapping[str, Any]) -> dict[str, str]:
    """What a resolved recipe says in each of COLUMNS; empty where a recipe is not there yet.

    d is the width that the listener ends with before its transformer blocks, heads are theirs (or,
    without any, the attention's), and batch is in utterances unless frames are the closer limit.
    """
    if not recipe:
        return dict.fromkeys(COLUMNS, "")
    blocks = recipe["listener"]["blocks"]
    return {
        "listener": _listener([b for b in blocks if b["kind"] not in _DEEP]),
        "blocks": _blocks(blocks, recipe),
        "sizes": _sizes(blocks, recipe),
        "teacher forcing": _forcing(recipe["teacher_forcing"]),
        "batch": _batch(recipe["batching"]),
        "weight decay": number(recipe["optimizer"].get("weight_decay", 0)),
        "rate": number(recipe["optimizer"]["rate"]),
        "data": _data(recipe["data"]),
    }


_DEEP = {"transformer": "tf_blocks", "conformer": "conformer blocks"}


def _listener(blocks: Sequence[Mapping[str, Any]]) -> str:
    """`conv to 512, 3 pyramids of 3 BiLSTM`: equal neighbours are counted."""
    found: list[tuple[str, int]] = []
    for block in blocks:
        said = _block(block)
        if found and found[-1][0] == said:
            found[-1] = (said, found[-1][1] + 1)
        else:
            found.append((said, 1))
    return ", ".join(
        said if count == 1 else f"{count} {said.replace('pyramid', 'pyramids', 1)}"
        for said, count in found
    )


def _block(block: Mapping[str, Any]) -> str:
    kind = str(block["kind"])
    if kind == "conv":
        strides = block.get("stride", 1)
        joined = ""
        if strides != 1:
            joined = f" by {'·'.join(map(str, strides)) if isinstance(strides, list) else strides}"
        return f"conv to {block['widths'][-1]}{joined}"
    if kind == "mobile":
        return f"mobile to {block['width']}"
    if kind == "bilstm":
        return f"{block['layers']} BiLSTM"
    if kind == "pyramid":
        return f"pyramid of {block['layers']} BiLSTM"
    return NAMES.get(kind, kind)


def _blocks(blocks: Sequence[Mapping[str, Any]], recipe: Mapping[str, Any]) -> str:
    said = [
        f"{name} {sum(b['layers'] for b in blocks if b['kind'] == kind)}"
        for kind, name in _DEEP.items()
        if any(b["kind"] == kind for b in blocks)
    ]
    return ", ".join([*said, f"cdn_layers {recipe['speller']['distribution_layers']}"])


def _sizes(blocks: Sequence[Mapping[str, Any]], recipe: Mapping[str, Any]) -> str:
    attention = recipe["attention"]
    heads = [block["heads"] for block in blocks if block["kind"] in _DEEP]
    parts = [
        f"d {_width(blocks)}",
        f"projection {attention['width']}",
        f"speller {recipe['speller']['width']}",
    ]
    if heads or attention["heads"] > 1:
        parts.append(f"heads {heads[-1] if heads else attention['heads']}")
    return ", ".join(parts)


def _width(blocks: Sequence[Mapping[str, Any]]) -> Any:
    for block in reversed(blocks):
        if block["kind"] in ("bilstm", "pyramid"):
            return 2 * block["width"]
        if block["kind"] == "conv":
            return block["widths"][-1]
        if block.get("width"):
            return block["width"]
    return "?"


def _forcing(forcing: Mapping[str, Any]) -> str:
    kind = str(forcing["kind"])
    if kind in ("rule-a", "rule-b"):
        return f"{kind[-1].upper()} {forcing.get('reading', '').replace('-', ' ')}".strip()
    if kind == "constant":
        return f"constant {number(forcing['rate'])}"
    if kind == "linear":
        return f"linear {number(forcing['start'])} to {number(forcing['end'])}"
    if kind == "after-alignment":
        return f"after alignment to {number(forcing['floor'])}"
    return kind


def _batch(batching: Mapping[str, Any]) -> str:
    """`64`, or `32 / 12,000 frames` where frames may be the closer limit (of 20 s each)."""
    utterances, frames = batching["utterances"], batching["frames"]
    if frames == "auto":
        return f"{utterances} / frames that fit"
    if utterances * 2000 <= frames:
        return str(utterances)
    return f"{utterances} / {frames:,} frames"


def _data(data: Mapping[str, Any]) -> str:
    also = [str(added["root"]).rstrip("/").rsplit("/", 1)[-1] for added in data.get("also", ())]
    root = str(data["root"]).rstrip("/").rsplit("/", 1)[-1]
    part = str(data["train"])
    # The seed's partitions have their own names; `train` alone says nothing.
    name = f"{root} {part}" if part in ("train", "training") else part
    return " + ".join([name, *also])


def number(value: Any) -> str:
    """A setting as a person writes it: `5e-3`, `0.3`, `1`."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    if value == 0 or 0.01 <= abs(value) < 1e5:
        return f"{value:g}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
