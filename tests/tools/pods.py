#!/usr/bin/env python3
"""Reads objects as JSON, one after another, and prints the pods that they would make."""

import json
import sys


def objects(text):
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        found, at = decoder.raw_decode(text, at)
        yield from found.get("items", [found])
        while at < len(text) and text[at].isspace():
            at += 1


for made in objects(sys.stdin.read().strip()):
    template = made.get("spec", {}).get("template") if made["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job") else None
    if template:
        metadata = {**template.get("metadata", {}), "name": made["metadata"]["name"]}
        if "namespace" in made["metadata"]:
            metadata["namespace"] = made["metadata"]["namespace"]
        print(json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}, indent=1))
