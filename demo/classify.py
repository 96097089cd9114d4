"""Classify a folder of class folders with a downloaded bundle, by plain timm alone.

    python classify.py BUNDLE IMAGES

Prints JSON: how many images, how many right, and the modules of this project that were loaded
(none may be). Run by the demo in a process of its own, away from the project's folder.
"""

import json
import sys
from pathlib import Path

import timm
import torch
from PIL import Image


def main(bundle: Path, images: Path) -> None:
    """Count the images whose folder is what the student says they are."""
    model = timm.create_model(f"local-dir:{bundle}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    classes = json.loads((bundle / "classes.json").read_text())
    paths = sorted(images.glob("*/*.png"))
    right = 0
    with torch.inference_mode():
        for start in range(0, len(paths), 256):
            chunk = paths[start : start + 256]
            batch = torch.stack([transform(Image.open(p).convert("RGB")) for p in chunk])
            answers = model(batch).argmax(dim=1).tolist()
            right += sum(classes[a] == p.parent.name for a, p in zip(answers, chunk, strict=True))
    ours = sorted({"tdmr", "app", "worker"} & set(sys.modules))
    print(json.dumps({"images": len(paths), "right": right, "project_modules": ours}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
