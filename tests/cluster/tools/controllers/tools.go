//go:build tools

// Package tools names the programs that tests/cluster/build.py builds.
package tools

import (
	_ "github.com/ray-project/kuberay/ray-operator"
	_ "sigs.k8s.io/kwok/cmd/kwok"
)
