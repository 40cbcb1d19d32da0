"""Calls one method of oras-py: `python client_oras_py_command.py JSON`; prints what it returned as JSON."""

import hashlib
import json
import sys

import oras.client
import oras.oci


def main(asked: str) -> None:
    wanted = json.loads(asked)
    arguments = wanted["arguments"]
    if subject := arguments.get("subject"):
        content = subject.encode()
        kind = json.loads(content).get("mediaType", "application/vnd.oci.image.manifest.v1+json")
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        arguments["subject"] = oras.oci.Subject(mediaType=kind, digest=digest, size=len(content))
    # The library names the type of what it attaches by the type of its config.
    if artifact := arguments.pop("artifact", None):
        with open("config.json", "w", encoding="utf-8") as config:
            config.write("{}")
        arguments["manifest_config"] = f"config.json:{artifact}"
    returned = getattr(oras.client.OrasClient(**wanted["client"]), wanted["method"])(**arguments)
    print(json.dumps(returned, default=lambda answer: answer.status_code))


if __name__ == "__main__":
    main(sys.argv[1])
