"""Classify an image with onnxruntime, numpy and Pillow: python predict_onnx.py IMAGE [MODEL]."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

model = Path(__file__).resolve().parent / (sys.argv[2] if len(sys.argv) > 2 else "model.onnx")
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
_, channels, size, _ = session.get_inputs()[0].shape
image = ImageOps.exif_transpose(Image.open(sys.argv[1])).convert("RGB")
image = image.convert({1: "L", 3: "RGB"}[channels])
scaled = [int(size * side / min(image.size)) for side in image.size]
left, top = (round((side - size) / 2) for side in scaled)
image = image.resize(scaled, Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))
pixels = np.asarray(image, dtype=np.float32).reshape(1, size, size, channels).transpose(0, 3, 1, 2)
probabilities = session.run(["probabilities"], {"images": pixels / 255})[0][0].tolist()
best = sorted(range(len(classes)), key=lambda place: -probabilities[place])[:5]
print(json.dumps({classes[place]: round(probabilities[place], 6) for place in best}))
