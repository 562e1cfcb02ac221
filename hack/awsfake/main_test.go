package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"

	"github.com/slipway-build/slipway/publisher/awstest"
)

// -save reads a snapshot from the address that serves it.
func TestSave(t *testing.T) {
	fake := awstest.New(awstest.Knobs{})
	defer fake.Close()
	server := httptest.NewServer(handler(fake, "http://here"))
	defer server.Close()

	client := ebs.New(ebs.Options{
		Region: awstest.Region, BaseEndpoint: &server.URL,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: awstest.AccessKeyID, SecretAccessKey: awstest.SecretAccessKey}, nil
		}),
	})
	started, err := client.StartSnapshot(t.Context(), &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1)})
	if err != nil {
		t.Fatal(err)
	}
	block := bytes.Repeat([]byte("slip"), awstest.BlockSize/4)
	sum := sha256.Sum256(block)
	if _, err = client.PutSnapshotBlock(t.Context(), &ebs.PutSnapshotBlockInput{
		SnapshotId: started.SnapshotId, BlockIndex: aws.Int32(2047), BlockData: bytes.NewReader(block), DataLength: aws.Int32(awstest.BlockSize),
		Checksum: aws.String(base64.StdEncoding.EncodeToString(sum[:])), ChecksumAlgorithm: "SHA256",
	}); err != nil {
		t.Fatal(err)
	}
	url := server.URL + "/_awstest/snapshots/" + awstest.Region + "/" + *started.SnapshotId + "/disk"
	name := filepath.Join(t.TempDir(), "disk.raw")
	if err := download(t.Context(), url, name); err == nil || !strings.Contains(err.Error(), "pending") {
		t.Errorf("pending snapshot: %v", err)
	}
	if _, err := os.Stat(name); err == nil {
		t.Error("a failed download leaves a file")
	}
	if _, err := client.CompleteSnapshot(t.Context(), &ebs.CompleteSnapshotInput{SnapshotId: started.SnapshotId, ChangedBlocksCount: aws.Int32(1)}); err != nil {
		t.Fatal(err)
	}
	if err := download(t.Context(), url, name); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	got := make([]byte, awstest.BlockSize)
	if _, err := file.ReadAt(got, 2047*awstest.BlockSize); err != nil || !bytes.Equal(got, block) {
		t.Errorf("the last block is different: %v", err)
	}
	if info, err := file.Stat(); err != nil || info.Size() != 1<<30 {
		t.Errorf("the file has %d bytes: %v", info.Size(), err)
	}

	for path, want := range map[string]string{
		"env": "export AWS_ENDPOINT_URL=http://here\n", "orphans": *started.SnapshotId, "violations": "", "requests": "ebs:CompleteSnapshot",
	} {
		if text := get(t, server.URL+"/_awstest/"+path); !strings.Contains(text, want) || want == "" && text != "" {
			t.Errorf("%s is %q", path, text)
		}
	}
	var list []awstest.SnapshotInfo
	if err := json.Unmarshal([]byte(get(t, server.URL+"/_awstest/snapshots")), &list); err != nil || len(list) != 1 || list[0].Written != 1 {
		t.Errorf("snapshots are %+v: %v", list, err)
	}
}

func get(t *testing.T, url string) string {
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestLoopbackOnly(t *testing.T) {
	for _, address := range []string{"0.0.0.0:4580", ":4580", "192.0.2.1:4580", "4580"} {
		if err := serve(t.Context(), address, "", 0, awstest.Knobs{}); err == nil || !strings.Contains(err.Error(), "-listen") {
			t.Errorf("%s: %v", address, err)
		}
	}
}
