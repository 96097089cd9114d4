"""Classify an image with timm, torch and Pillow: python predict_timm.py IMAGE."""

import json
import sys
from pathlib import Path

import timm
import torch
from PIL import Image, ImageOps

folder = Path(__file__).resolve().parent
classes = json.loads((folder / "classes.json").read_bytes())
temperature = json.loads((folder / "evaluation.json").read_bytes())["calibration"]["temperature"]
model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
config = timm.data.resolve_model_data_config(model)
image = ImageOps.exif_transpose(Image.open(sys.argv[1])).convert("RGB")
image = image.convert({1: "L", 3: "RGB"}[config["input_size"][0]])
with torch.inference_mode():
    images = timm.data.create_transform(**config)(image).unsqueeze(0)
    probabilities = (model(images)[0] / temperature).softmax(0).tolist()
best = sorted(range(len(classes)), key=lambda place: -probabilities[place])[:5]
print(json.dumps({classes[place]: round(probabilities[place], 6) for place in best}))
