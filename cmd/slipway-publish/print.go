package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/slipway-build/slipway/publisher/ami"
	"github.com/slipway-build/slipway/publisher/disk"
)

func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

func printResult(w io.Writer, result *ami.Result, took time.Duration, asJSON bool) error {
	if asJSON {
		return printJSON(w, result)
	}
	for _, image := range result.Images {
		how := ""
		switch b := image.Blocks; {
		case image.Existing:
			how = ", existing"
		case b != nil:
			how = fmt.Sprintf(", %d of %d blocks written", b.Written, b.Total)
			if b.Resumed > 0 {
				how += fmt.Sprintf(", %d by an earlier run", b.Resumed)
			}
		}
		fmt.Fprintf(w, "%s  %s (%s, %s, %s%s)\n", image.Image, image.Region, image.Snapshot, image.Architecture, image.BootMode, how)
	}
	image := result.Images[0]
	_, err := fmt.Fprintf(w, "Published in %v. Start it with:\n  aws ec2 run-instances --region %s --image-id %s --instance-type %s --key-name KEY\n",
		took.Round(100*time.Millisecond), image.Region, image.Image, instanceType(image.Architecture))
	return err
}

func instanceType(machine string) string {
	if machine == string(disk.ARM64) {
		return "t4g.micro"
	}
	return "t3.micro"
}

func printPlan(w io.Writer, d *disk.Disk, o ami.Options, result *ami.Result, asJSON bool) error {
	if asJSON {
		return printJSON(w, result)
	}
	for _, image := range result.Images {
		if image.Existing {
			fmt.Fprintf(w, "%s: %s exists: nothing to do\n", image.Region, image.Image)
			continue
		}
		fmt.Fprintf(w, "%s: would register %q for %s, boot mode %s, with a volume of %d GiB; %d of %d blocks are not zero\n",
			image.Region, o.Name, image.Architecture, image.BootMode, o.VolumeSize, len(d.Blocks), d.Count())
	}
	_, err := fmt.Fprintln(w, "EC2 permits the registration. The EBS direct APIs have no dry run.")
	return err
}

func printLeftovers(w io.Writer, found []ami.Leftover, dry, asJSON bool) error {
	if asJSON {
		return printJSON(w, append([]ami.Leftover{}, found...))
	}
	verb := "removed"
	if dry {
		verb = "would remove"
	}
	kept := 0
	for _, l := range found {
		if l.Kept {
			kept++
			fmt.Fprintf(w, "kept %s in %s (%s)\n", l.ID, l.Region, l.Why)
			continue
		}
		if l.Bin != nil {
			l.Why += ", in the Recycle Bin until " + l.Bin.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s %s in %s (%s, created %s)\n", verb, l.ID, l.Region, l.Why, l.Created.UTC().Format(time.RFC3339))
	}
	_, err := fmt.Fprintf(w, "%s %d leftovers\n", verb, len(found)-kept)
	return err
}
