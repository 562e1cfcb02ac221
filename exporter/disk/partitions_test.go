package disk

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/mbr"
)

func TestReadPartitions(t *testing.T) {
	image, err := gpt.Table{Sectors: 1 << 15, ID: gpt.Derive("disk", nil), Partitions: []gpt.Partition{
		{Type: gpt.TypeBIOSBoot, ID: gpt.Derive("1", nil), Name: "boot", First: 2048, Last: 4095},
		{Number: 7, Type: gpt.TypeESP, ID: gpt.Derive("7", nil), First: 4096, Last: 8191},
		{Number: 8, Type: gpt.Derive("type", nil), ID: gpt.Derive("8", nil), First: 8192, Last: 8192, Attributes: gpt.LegacyBoot},
	}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	guid, err := io.ReadAll(io.NewSectionReader(image, 0, image.Size))
	if err != nil {
		t.Fatal(err)
	}
	record := mbr.Table{}
	record.Partitions[1] = mbr.Partition{Active: true, Type: mbr.TypeLinux, First: 2048, Sectors: 8}
	record.Partitions[3] = mbr.Partition{Type: mbr.TypeESP, First: 4096, Sectors: 1}
	legacy, err := record.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		disk []byte
		want []Partition
	}{
		"GPT": {guid, []Partition{
			{Number: 1, Name: "boot", Type: "BIOS boot", Start: 1 << 20, Size: 1 << 20, BIOSBoot: true, Legacy: true},
			{Number: 7, Type: "EFI system", Start: 2 << 20, Size: 2 << 20, ESP: true},
			{Number: 8, Type: gpt.Derive("type", nil).String(), Start: 4 << 20, Size: 512, Legacy: true},
		}},
		"MBR": {legacy, []Partition{
			{Number: 2, Type: "MBR type 0x83", Start: 1 << 20, Size: 4096, Legacy: true},
			{Number: 4, Type: "MBR type 0xef", Start: 2 << 20, Size: 512, ESP: true},
		}},
	} {
		table, err := ReadPartitions(bytes.NewReader(test.disk))
		if err != nil || !slices.Equal(table.Partitions, test.want) || table.GPT.Sectors > 0 != (name == "GPT") {
			t.Errorf("%s: got %+v, %v", name, table, err)
		}
	}
	guid[600]++
	if _, err := ReadPartitions(bytes.NewReader(guid)); !errors.Is(err, gpt.ErrFormat) {
		t.Errorf("a damaged table: %v", err)
	}
	if _, err := ReadPartitions(bytes.NewReader(guid[:100])); !errors.Is(err, mbr.ErrFormat) {
		t.Errorf("a short disk: %v", err)
	}
}
