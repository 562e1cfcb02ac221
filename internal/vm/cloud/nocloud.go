package cloud

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/slipway-build/slipway/exporter/iso9660"
	"github.com/slipway-build/slipway/exporter/tree"
)

// NoCloudLabel is the label of the volume that WriteNoCloud writes.
const NoCloudLabel = "cidata"

// WriteNoCloud writes an ISO 9660 volume for the NoCloud data source.
//
// https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
func (i Instance) WriteNoCloud(w io.Writer) error {
	// JSON is YAML.
	metadata, err := json.Marshal(map[string]any{"instance-id": i.ID, "local-hostname": i.Hostname, "public-keys": i.PublicKeys})
	if err != nil {
		return err
	}
	files := []tree.Entry{tree.NewFile("meta-data", 0o644, string(metadata)+"\n"), tree.NewFile("user-data", 0o644, i.UserData)}
	volume, err := iso9660.New(tree.AddParents(files), iso9660.Options{Label: strings.ToUpper(NoCloudLabel), Time: time.Unix(315532800, 0)})
	if err != nil {
		return fmt.Errorf("NoCloud volume: %w", err)
	}
	content, err := volume.Image()
	if err != nil {
		return fmt.Errorf("NoCloud volume: %w", err)
	}
	_, err = io.Copy(w, io.NewSectionReader(content, 0, content.Size))
	return err
}
