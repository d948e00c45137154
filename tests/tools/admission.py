#!/usr/bin/env python3
"""Asks a real API server what it admits: every case of a table, without leaving anything behind.

    admission.py CRD.yaml TABLE.yaml     KUBECONFIG says which server, KUBECTL which kubectl (default: kubectl)

The table has `base` (an object that is admitted) and `cases`. Each case has
    it       a sentence
    from     a merge patch onto base that makes the stored object; with it (`{}` is enough) the case is an update
    set      a merge patch onto the stored object (onto base where nothing is stored) that makes what is sent
    status   with it the case is an update of the status, and this is what is sent
    refused  absent: it is admitted, and the spec comes back as it was sent
             {at: path, saying: part of the message}: it is refused for this
Needs nothing but Python. Definition and namespace stay on the server; run it against one that is thrown away.
"""

import copy
import http.client
import json
import os
import re
import secrets
import subprocess
import sys
import time

KUBECTL = os.environ.get("KUBECTL", "kubectl")
GROUP = "/apis/messaging.dev/v1alpha1"
PLURAL = "messagingclusters"


def kubectl(*arguments):
    done = subprocess.run([KUBECTL, *arguments], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        sys.exit(f"admission: kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def read(path):
    """A YAML file, by the parser of kubectl: any kind of object will do, no server is asked."""
    return json.loads(kubectl("patch", "--local", "--type=merge", "--patch={}", "-o", "json", "-f", path))


def merge(target, patch):
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = copy.deepcopy(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


class Server:
    """The API server, through `kubectl proxy`, which knows how to log in."""

    def __init__(self):
        self.proxy = subprocess.Popen([KUBECTL, "proxy", "--port=0"], stdout=subprocess.PIPE, text=True)
        line = self.proxy.stdout.readline()
        port = re.search(r":(\d+)\s*$", line)
        if not port:
            self.close()
            sys.exit(f"admission: kubectl proxy said {line!r}")
        self.connection = http.client.HTTPConnection("127.0.0.1", int(port[1]), timeout=30)

    def close(self):
        self.proxy.terminate()
        self.proxy.wait(timeout=10)

    def ask(self, method, path, body=None, dry=False):
        if dry:
            path += "?dryRun=All&fieldValidation=Strict"
        text = None if body is None else json.dumps(body)
        self.connection.request(method, path, text, {"Content-Type": "application/json"})
        response = self.connection.getresponse()
        return response.status, json.loads(response.read())


def causes(answer):
    """What a refusal says, as (path, message)."""
    found = [(cause.get("field", ""), cause.get("message", "")) for cause in answer.get("details", {}).get("causes", [])]
    # The whole object has no path.
    found = [("" if field == "<nil>" else field, message) for field, message in found]
    # A field that nobody knows is refused before validation, by a message alone.
    return found or [("", answer.get("message", ""))]


def judge(case, code, answer, sent):
    """What is wrong with an answer; nothing when it is as the case says."""
    refused = case.get("refused")
    if refused is None:
        if code not in (200, 201):
            return f"refused with {code}: {answer.get('message')}"
        part = "status" if "status" in case else "spec"
        if answer.get(part) != sent.get(part):
            return f"admitted, but stored as {json.dumps(answer.get(part))}"
        return None
    if code in (200, 201):
        return "admitted"
    said = causes(answer)
    if code not in (400, 422):
        return f"answered with {code}: {said}"
    if any(at == refused["at"] and refused["saying"] in message for at, message in said):
        return None
    return f"refused for something else: {said}"


def run(server, namespace, base, case):
    path = f"{GROUP}/namespaces/{namespace}/{PLURAL}"
    if "from" not in case and "status" not in case:
        sent = merge(base, case.get("set", {}))
        return judge(case, *server.ask("POST", path, sent, dry=True), sent)
    code, stored = server.ask("POST", path, merge(base, case.get("from", {})))
    if code != 201:
        return f"the object to begin with is refused with {code}: {stored.get('message')}"
    name = f"{path}/{stored['metadata']['name']}"
    try:
        if "status" in case:
            sent = {**stored, "status": case["status"]}
            return judge(case, *server.ask("PUT", f"{name}/status", sent, dry=True), sent)
        sent = merge(stored, case.get("set", {}))
        return judge(case, *server.ask("PUT", name, sent, dry=True), sent)
    finally:
        server.ask("DELETE", name)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    began = time.monotonic()
    kubectl("apply", "--server-side", "--force-conflicts", "-f", sys.argv[1])
    kubectl("wait", "--for=condition=Established", f"crd/{PLURAL}.messaging.dev", "--timeout=30s")
    table = read(sys.argv[2])
    names = [case["it"] for case in table["cases"]]
    if len(set(names)) != len(names):
        sys.exit("admission: two cases have the same sentence")
    namespace = f"admission-{secrets.token_hex(4)}"
    kubectl("create", "namespace", namespace)
    faults = 0
    server = Server()
    try:
        for case in table["cases"]:
            unknown = set(case) - {"it", "from", "set", "status", "refused"}
            wrong = f"the case has unknown parts: {unknown}" if unknown else run(server, namespace, table["base"], case)
            if wrong:
                faults += 1
                print(f"admission: {case['it']}: {wrong}", file=sys.stderr)
    finally:
        server.close()
        kubectl("delete", "namespace", namespace, "--wait=false")
    print(f"admission: {len(names)} cases, {faults} not as expected, {time.monotonic() - began:.1f} s")
    sys.exit(1 if faults or not names else 0)


if __name__ == "__main__":
    main()
