package awstest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	ebstypes "github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/slipway-build/slipway/publisher/awstest"
)

// A client calls a fake through the SDK, without retries.
type client struct {
	testing.TB
	ctx  context.Context
	fake *awstest.Server
	conf aws.Config
	ebs  *ebs.Client
	ec2  *ec2.Client
	s3   *s3.Client
	sts  *sts.Client
	iam  *iam.Client
	ssm  *ssm.Client
}

func start(tb testing.TB, knobs awstest.Knobs) *client {
	tb.Helper()
	fake := awstest.Start(tb, knobs)
	return connect(tb, fake, config(fake.URL(), awstest.Region))
}

func config(url, region string) aws.Config {
	return aws.Config{
		Region: region, RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported, // as config.LoadDefaultConfig does
		BaseEndpoint: aws.String(url),
		Retryer:      func() aws.Retryer { return aws.NopRetryer{} },
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: awstest.AccessKeyID, SecretAccessKey: awstest.SecretAccessKey}, nil
		}),
	}
}

func connect(tb testing.TB, fake *awstest.Server, conf aws.Config) *client {
	return &client{
		TB: tb, ctx: tb.Context(), fake: fake, conf: conf,
		ebs: ebs.NewFromConfig(conf), ec2: ec2.NewFromConfig(conf), s3: s3.NewFromConfig(conf), sts: sts.NewFromConfig(conf),
		iam: iam.NewFromConfig(conf), ssm: ssm.NewFromConfig(conf),
	}
}

// in returns a client for another region.
func (c *client) in(region string) *client {
	return connect(c.TB, c.fake, config(*c.conf.BaseEndpoint, region))
}

// code returns the code of an API error, "" if there is no error.
func code(err error) string {
	var e smithy.APIError
	if errors.As(err, &e) {
		return e.ErrorCode()
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// clean fails the test if there are violations.
func (c *client) clean() {
	c.Helper()
	for _, v := range c.fake.Violations() {
		c.Error("violation:", v)
	}
}

// violated fails the test unless there is exactly one violation that contains
// text.
func (c *client) violated(text string) {
	c.Helper()
	if v := c.fake.Violations(); len(v) != 1 || !strings.Contains(v[0].String(), text) {
		c.Errorf("violations are %v, not one with %q", v, text)
	}
}

// noise returns the same bytes for the same seed.
func noise(seed byte, n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(data)
	return data
}

func encode(sum [32]byte) *string { return aws.String(base64.StdEncoding.EncodeToString(sum[:])) }

func putInput(id string, index int32, block []byte) *ebs.PutSnapshotBlockInput {
	return &ebs.PutSnapshotBlockInput{
		SnapshotId: &id, BlockIndex: &index, BlockData: bytes.NewReader(block), DataLength: aws.Int32(int32(len(block))),
		Checksum: encode(sha256.Sum256(block)), ChecksumAlgorithm: ebstypes.ChecksumAlgorithmChecksumAlgorithmSha256,
	}
}

func (c *client) put(id string, index int32, block []byte) {
	c.Helper()
	must(c.ebs.PutSnapshotBlock(c.ctx, putInput(id, index, block)))
}

// must returns out, or panics on an error.
func must[T any](out T, err error) T {
	if err != nil {
		panic(err)
	}
	return out
}

// linear returns the linear aggregate checksum of blocks.
func linear(blocks map[int32][]byte) *string {
	var indexes []int32
	for index := range blocks {
		indexes = append(indexes, index)
	}
	slices.Sort(indexes)
	all := sha256.New()
	for _, index := range indexes {
		sum := sha256.Sum256(blocks[index])
		all.Write(sum[:])
	}
	return encode([32]byte(all.Sum(nil)))
}

func completeInput(id string, blocks map[int32][]byte) *ebs.CompleteSnapshotInput {
	return &ebs.CompleteSnapshotInput{
		SnapshotId: &id, ChangedBlocksCount: aws.Int32(int32(len(blocks))), Checksum: linear(blocks),
		ChecksumAlgorithm:         ebstypes.ChecksumAlgorithmChecksumAlgorithmSha256,
		ChecksumAggregationMethod: ebstypes.ChecksumAggregationMethodChecksumAggregationLinear,
	}
}

// snapshot creates a completed snapshot of 1 GiB. The function change may
// change the request.
func (c *client) snapshot(blocks map[int32][]byte, change func(*ebs.StartSnapshotInput)) string {
	c.Helper()
	in := &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1)}
	if change != nil {
		change(in)
	}
	id := *must(c.ebs.StartSnapshot(c.ctx, in)).SnapshotId
	for index, block := range blocks {
		c.put(id, index, block)
	}
	must(c.ebs.CompleteSnapshot(c.ctx, completeInput(id, blocks)))
	return id
}

// disk returns the first 16 blocks of a volume.
func (c *client) disk(id string) []byte {
	c.Helper()
	d, err := c.fake.Disk(c.conf.Region, id)
	if err != nil {
		c.Fatal(err)
	}
	data := make([]byte, 16*awstest.BlockSize)
	if _, err := d.ReadAt(data, 0); err != nil {
		c.Fatal(err)
	}
	return data
}

// imageInput returns a valid request for a UEFI machine.
func imageInput(name, snapshot string) *ec2.RegisterImageInput {
	return &ec2.RegisterImageInput{
		Name: &name, Architecture: ec2types.ArchitectureValuesX8664, VirtualizationType: aws.String("hvm"),
		RootDeviceName: aws.String("/dev/xvda"), EnaSupport: aws.Bool(true), BootMode: ec2types.BootModeValuesUefiPreferred,
		ImdsSupport: ec2types.ImdsSupportValuesV20,
		BlockDeviceMappings: []ec2types.BlockDeviceMapping{{
			DeviceName: aws.String("/dev/xvda"),
			Ebs:        &ec2types.EbsBlockDevice{SnapshotId: &snapshot, VolumeType: ec2types.VolumeTypeGp3, DeleteOnTermination: aws.Bool(true)},
		}},
		TagSpecifications: []ec2types.TagSpecification{{
			ResourceType: ec2types.ResourceTypeImage, Tags: []ec2types.Tag{{Key: aws.String("Name"), Value: &name}},
		}},
	}
}

// send posts a body with a valid signature, for requests that the SDK cannot
// send.
func (c *client) send(service, body string) *http.Response {
	c.Helper()
	path := "/"
	if service == "ebs" {
		path = "/snapshots"
	}
	r := must(http.NewRequestWithContext(c.ctx, http.MethodPost, *c.conf.BaseEndpoint+path, strings.NewReader(body)))
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	sum := sha256.Sum256([]byte(body))
	credentials := must(c.conf.Credentials.Retrieve(c.ctx))
	if err := v4.NewSigner().SignHTTP(c.ctx, credentials, r, hex.EncodeToString(sum[:]), service, c.conf.Region, time.Now()); err != nil {
		c.Fatal(err)
	}
	response := must(http.DefaultClient.Do(r))
	response.Body.Close()
	return response
}

// toLoopback sends all requests to the fake, whatever their host.
type toLoopback struct{ url string }

func (l toLoopback) Do(r *http.Request) (*http.Response, error) {
	there := must(url.Parse(l.url))
	r.Host = r.URL.Host
	r.URL.Host = there.Host
	return http.DefaultClient.Do(r)
}

// changeBody flips a bit in the middle of each body, after signing.
type changeBody struct{ aws.HTTPClient }

func (c changeBody) Do(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		return c.HTTPClient.Do(r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	body[len(body)/2] ^= 1
	r.Body = io.NopCloser(bytes.NewReader(body))
	return c.HTTPClient.Do(r)
}
