"""Clients written in Go, at exact versions: `python -m helpers.client_programs` builds those of `make e2e`.

Built before the tests run, because the first build takes minutes and a test has less.
"""

import sys

from helpers.go_programs import GoProgram, install

CRANE = GoProgram("crane", "github.com/google/go-containerregistry/cmd/crane", "v0.22.1", (1, 25))
ORAS = GoProgram("oras", "oras.land/oras/cmd/oras", "v1.3.6", (1, 26, 7))
REGCTL = GoProgram("regctl", "github.com/regclient/regclient/cmd/regctl", "v0.11.7", (1, 26))
HELM = GoProgram("helm", "helm.sh/helm/v4/cmd/helm", "v4.3.1", (1, 26))
COSIGN = GoProgram("cosign", "github.com/sigstore/cosign/v3/cmd/cosign", "v3.1.3", (1, 26))

SHORT = (HELM, CRANE, ORAS, REGCTL)
LONG = (*SHORT, COSIGN)


def main(arguments: list[str]) -> None:
    """Builds SHORT, or LONG with the argument `all`, one after the other: Go itself uses every core."""
    for program in LONG if arguments == ["all"] else SHORT:
        print(install(program), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
