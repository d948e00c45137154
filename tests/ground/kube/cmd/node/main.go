// Command node is what Kubernetes runs on each node, the kubelet and kube-proxy, in one binary.
// The name it is called by (argv[0]) chooses which.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	_ "time/tzdata"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

var servers = map[string]func() *cobra.Command{
	"kube-proxy": proxy.NewProxyCommand,
	"kubelet":    func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
}

func main() {
	name := filepath.Base(os.Args[0])
	command, known := servers[name]
	if !known {
		fmt.Fprintf(os.Stderr, "%s: no such server\n", name)
		os.Exit(2)
	}
	os.Exit(cli.Run(command()))
}
