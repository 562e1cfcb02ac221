package frontend_test

import (
	"context"
	"fmt"
	"log"

	"github.com/moby/buildkit/client"
	"github.com/tonistiigi/fsutil"

	"github.com/slipway-build/slipway/frontend"
)

// A client runs the frontend in its own process, against any BuildKit daemon.
func ExampleBuild() {
	build := func(ctx context.Context, address, folder string) error {
		c, err := client.New(ctx, address)
		if err != nil {
			return err
		}
		defer c.Close()
		files, err := fsutil.NewFS(folder)
		if err != nil {
			return err
		}
		_, err = c.Build(ctx, client.SolveOpt{
			FrontendAttrs: map[string]string{"filename": "aws.yml", "target": "raw", "build-arg:SIZE": "100M"},
			LocalMounts:   map[string]fsutil.FS{"context": files, "dockerfile": files},
			Exports:       []client.ExportEntry{{Type: client.ExporterLocal, OutputDir: "out"}},
		}, "slipway", frontend.Build, nil)
		return err
	}
	if err := build(context.Background(), "unix:///run/buildkit/buildkitd.sock", "."); err != nil {
		log.Fatal(err)
	}
}

func ExampleLockName() {
	fmt.Println(frontend.LockName("machines/aws.yml"))
	// Output: machines/aws.lock.yml
}
