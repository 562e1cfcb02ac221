package awstest_test

import (
	"cmp"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/slipway-build/slipway/publisher/ami"
	"github.com/slipway-build/slipway/publisher/awstest"
	"github.com/slipway-build/slipway/publisher/disk"
)

// machine writes a disk that boots with BIOS.
func machine(t *testing.T, seed byte) *disk.Disk {
	t.Helper()
	data := noise(seed, 4*awstest.BlockSize)
	clear(data[446:512])
	copy(data[446:], []byte{0x80, 0, 0, 0, 0x83, 0, 0, 0, 8, 0, 0, 0, 8}) // an active partition
	copy(data[510:], "\x55\xaa")
	path := filepath.Join(t.TempDir(), "machine.raw")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	d := must(disk.Open(t.Context(), path))
	t.Cleanup(func() { d.Close() })
	return d
}

const (
	exampleKey   = "arn:aws:kms:us-east-1:" + awstest.Account + ":key/11111111-2222-4333-8444-000000000001"
	exampleOther = "210987654321"
)

// TestTerraformExample applies examples/aws/terraform to moto: the second plan
// has no changes, an instance starts from an AMI that was published there, and
// destroy removes everything. The policies permit every request of the publisher
// and nothing that it does not need.
func TestTerraformExample(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Terraform's AWS provider several times, which takes a minute")
	}
	motoURL := startMoto(t)
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../examples/aws/terraform")); err != nil {
		t.Fatal(err)
	}
	tf := newTerraform(t, dir, []string{
		"AWS_ENDPOINT_URL=" + motoURL, "AWS_REGION=" + awstest.Region, "AWS_EC2_METADATA_DISABLED=true",
		"AWS_ACCESS_KEY_ID=" + awstest.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + awstest.SecretAccessKey,
		"AWS_S3_USE_PATH_STYLE=true",
	})
	tf.run("validate")
	vars := []string{
		"-var=bucket=slipway-disks", "-var=github_repository=slipway-build/slipway", `-var=kms_keys=["` + exampleKey + `"]`,
		"-var=ami=" + publishToMoto(t, motoURL), "-var=public_key=ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS root@example",
		`-var=ssh_from=["203.0.113.7/32"]`,
	}
	tf.run(append([]string{"apply", "-auto-approve"}, vars...)...)
	tf.run(append([]string{"plan", "-detailed-exitcode"}, vars...)...) // fails if there are changes
	outputs := outputsOf(t, tf.run("output", "-json"))
	if login, _ := outputs["ssh"].(string); !strings.HasPrefix(login, "ssh root@") {
		t.Errorf("the outputs are %v: no instance was started", outputs)
	}

	moto := connect(t, nil, config(motoURL, awstest.Region))
	role := must(moto.iam.GetRole(t.Context(), &iam.GetRoleInput{RoleName: aws.String("slipway-publish-github")})).Role
	trust := must(url.QueryUnescape(*role.AssumeRolePolicyDocument))
	if outputs["github_role"] != *role.Arn || !strings.Contains(trust, "repo:slipway-build/slipway:ref:refs/heads/main") || !strings.Contains(trust, ":aud") {
		t.Errorf("role %v of GitHub trusts %s", outputs["github_role"], trust)
	}
	policyOf := func(output string) string {
		arn, _ := outputs[output].(string)
		version := must(moto.iam.GetPolicy(t.Context(), &iam.GetPolicyInput{PolicyArn: &arn})).Policy.DefaultVersionId
		document := must(moto.iam.GetPolicyVersion(t.Context(), &iam.GetPolicyVersionInput{PolicyArn: &arn, VersionId: version}))
		return must(url.QueryUnescape(*document.PolicyVersion.Document))
	}
	t.Run("ebs policy", func(t *testing.T) { checkPolicy(t, policyOf("policy_ebs"), ami.MethodEBS) })
	t.Run("deploy policy", func(t *testing.T) { checkDeployPolicy(t, policyOf("policy_ebs"), policyOf("policy_deploy")) })
	t.Run("cleanup policy", func(t *testing.T) { checkCleanupPolicy(t, policyOf("policy_cleanup")) })
	t.Run("import policy", func(t *testing.T) { checkPolicy(t, policyOf("policy_import"), ami.MethodImport) })

	tf.run(append([]string{"destroy", "-auto-approve"}, vars...)...)
	if left := strings.TrimSpace(string(tf.run("show"))); left != "" && !strings.Contains(left, "state is empty") && !strings.Contains(left, "The state file is empty") {
		t.Errorf("destroy left %s", left)
	}
}

// publishToMoto publishes a disk to moto and returns the ID of its AMI. Moto
// returns a block size of 512 bytes, although it accepts the size of EBS, so a
// proxy corrects that.
func publishToMoto(t *testing.T, motoURL string) string {
	t.Helper()
	target := must(url.Parse(motoURL))
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	proxy.ModifyResponse = func(r *http.Response) error {
		if r.Request.Method != http.MethodPost || r.Request.URL.Path != "/snapshots" {
			return nil
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		text := strings.Replace(string(body), `"BlockSize": 512`, `"BlockSize": 524288`, 1)
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
		r.Header.Del("Content-Length")
		return nil
	}
	server := httptest.NewServer(proxy)
	defer server.Close()
	p := must(ami.New(machine(t, 1), ami.Options{Name: "machine-1", State: t.TempDir()}))
	return must(p.Publish(t.Context(), config(server.URL, awstest.Region))).Images[0].Image
}

// checkPolicy makes every kind of publish, and a gc, with a policy. It reports
// denied requests and actions of the policy that no request required.
func checkPolicy(t *testing.T, policy string, method ami.Method) {
	fake := awstest.Start(t, awstest.Knobs{Policies: []string{policy}})
	fake.CreateBucket(awstest.Region, "slipway-disks")
	cfg := config(fake.URL(), awstest.Region)
	publish := func(seed byte, o ami.Options) *ami.Image {
		t.Helper()
		o.Method, o.State, o.Timeout = method, t.TempDir(), 5*time.Second
		if method == ami.MethodImport {
			o.Bucket = "slipway-disks"
		}
		p := must(ami.New(machine(t, seed), o))
		result, err := p.Publish(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return result.Images[0]
	}
	all := ami.Options{
		Name: "machine-1", Regions: []string{awstest.Region, "eu-west-1"}, Copy: true, Share: []string{exampleOther},
		SSMParameter: "/slipway/machine", DeprecateAfter: 24 * time.Hour, Tags: map[string]string{"Team": "infra"},
	}
	publish(1, all)
	all.Share, all.Tags = []string{awstest.Account}, map[string]string{"Team": "sales"} // changes the existing image
	publish(1, all)
	publish(2, ami.Options{Name: "machine-2", KMSKey: exampleKey, Share: []string{exampleOther}})
	publish(3, ami.Options{Name: "machine-3", Encrypt: true})
	if method == ami.MethodEBS {
		publish(4, ami.Options{Name: "machine-4", Parent: "auto"})
		// Without its manifest, the blocks of a parent are read.
		many := map[string]string{}
		for i := range 45 {
			many[strings.Repeat("x", i+1)] = ""
		}
		parent := publish(5, ami.Options{Name: "machine-5", Tags: many}).Snapshot
		publish(6, ami.Options{Name: "machine-6", Parent: parent})
	}

	// The account's default key cannot be shared.
	fake.SetKnobs(awstest.Knobs{Policies: []string{policy}, EncryptByDefault: true})
	shared := must(ami.New(machine(t, 7), ami.Options{Name: "machine-7", Share: []string{exampleOther}, State: t.TempDir()}))
	if _, err := shared.Preflight(t.Context(), cfg); ami.ClassOf(err) != ami.ClassUsage {
		t.Errorf("got %v", err)
	}

	// A failure undoes what the run made.
	fake.SetKnobs(awstest.Knobs{Policies: []string{policy}, Denied: []string{"ec2:EnableImageDeprecation"}})
	for i, o := range []ami.Options{{DeprecateAfter: 24 * time.Hour}, {DeprecateAfter: 24 * time.Hour, Copy: true, Regions: all.Regions}} {
		o.Name, o.Method, o.State = "failing", method, t.TempDir()
		if method == ami.MethodImport {
			o.Bucket = "slipway-disks"
		}
		before := len(fake.Snapshots())
		if _, err := must(ami.New(machine(t, 10+byte(i)), o)).Publish(t.Context(), cfg); err == nil || strings.Contains(err.Error(), "could not undo") {
			t.Errorf("got %v", err)
		}
		if left := len(fake.Snapshots()); left != before {
			t.Errorf("%d snapshots left behind", left-before)
		}
	}
	fake.SetKnobs(awstest.Knobs{Policies: []string{policy}, Denied: []string{"ec2:EnableImageDeregistrationProtection"}})
	protected := ami.Options{Name: "protected", Method: method, State: t.TempDir(), Protection: ami.ProtectionOn}
	if method == ami.MethodImport {
		protected.Bucket = "slipway-disks"
	}
	if _, err := must(ami.New(machine(t, 12), protected)).Publish(t.Context(), cfg); err == nil || strings.Contains(err.Error(), "could not undo") {
		t.Errorf("got %v", err)
	}
	fake.SetKnobs(awstest.Knobs{Policies: []string{policy}})
	public := must(ami.New(machine(t, 13), ami.Options{Name: "public", Share: []string{"all"}, State: t.TempDir()}))
	if _, err := public.Preflight(t.Context(), cfg); err != nil {
		t.Error(err)
	}
	client := ec2.NewFromConfig(cfg)
	for _, im := range must(client.DescribeImages(t.Context(), &ec2.DescribeImagesInput{Owners: []string{"self"}})).Images {
		must(client.DeregisterImage(t.Context(), &ec2.DeregisterImageInput{ImageId: im.ImageId}))
	}
	o := ami.GCOptions{OlderThan: -time.Minute}
	if method == ami.MethodImport {
		o.Bucket = "slipway-disks"
	}
	if found, err := ami.GC(t.Context(), cfg, o); err != nil || len(found) == 0 {
		t.Errorf("GC: %v, %v", found, err)
	}

	checkUsed(t, fake.Requests(), policy, map[string]bool{
		"ec2:CancelImportTask":    true, // only an interrupted import needs it
		"s3:AbortMultipartUpload": true, // only an interrupted upload needs it
		"s3:GetObject":            true, // only an upload whose last answer is lost needs it
		"ssm:DeleteParameter":     true, // only a failure in another region needs it
		"ssm:GetParameters":       true, // only instances that start by the name of a parameter need it
		"iam:PassRole":            true, // part of ImportSnapshot
	})
}

// checkDeployPolicy tests, deploys and cleans up with the policies to publish
// and to deploy.
func checkDeployPolicy(t *testing.T, ebs, deploy string) {
	knobs := awstest.Knobs{Policies: []string{ebs, deploy}, Console: func(awstest.InstanceInfo) []byte { return []byte("login: ") }}
	fake := awstest.Start(t, knobs)
	cfg := config(fake.URL(), awstest.Region)
	var images []string
	for i, name := range []string{"machine-1", "machine-2"} {
		p := must(ami.New(machine(t, byte(i)), ami.Options{Name: name, Launch: new(ami.Launch), State: t.TempDir(), Tags: map[string]string{"Team": "infra"}}))
		result, err := p.Publish(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, result.Images[0].Image)
	}
	open := knobs
	open.Policies = nil
	fake.SetKnobs(open)
	client := ec2.NewFromConfig(cfg)
	instance := *must(client.RunInstances(t.Context(), runInput(images[0]))).Instances[0].InstanceId
	foreign := *must(client.RegisterImage(t.Context(), imageInput("foreign", *must(client.DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{})).Snapshots[0].SnapshotId))).ImageId
	fake.SetKnobs(knobs)

	o := ami.DeployOptions{Instances: []string{instance}, Launch: new(ami.Launch), SSMParameter: "/slipway/machine", State: t.TempDir()}
	if _, err := ami.Deploy(t.Context(), cfg, images[1], o); err != nil {
		t.Error(err)
	}
	if _, err := ami.Deploy(t.Context(), cfg, foreign, ami.DeployOptions{Launch: new(ami.Launch), State: t.TempDir()}); ami.ClassOf(err) != ami.ClassPermission {
		t.Errorf("an instance of a foreign image: %v", err)
	}
	if _, err := client.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{instance}}); code(err) != "UnauthorizedOperation" {
		t.Errorf("the policy permits to terminate any instance: %v", err)
	}
	if found, err := ami.GC(t.Context(), cfg, ami.GCOptions{OlderThan: -time.Minute}); err != nil {
		t.Errorf("GC: %v, %v", found, err)
	}
	checkUsed(t, fake.Requests(), deploy, map[string]bool{"ec2:CreateTags": true}) // part of the requests that create
}

// checkCleanupPolicy removes an old image with the policy for that.
func checkCleanupPolicy(t *testing.T, policy string) {
	fake := awstest.Start(t, awstest.Knobs{})
	cfg := config(fake.URL(), awstest.Region)
	for i, name := range []string{"machine-1", "machine-2"} {
		must(must(ami.New(machine(t, byte(i)), ami.Options{Name: name, SSMParameter: "/any/" + name[8:9], State: t.TempDir()})).Publish(t.Context(), cfg))
		fake.Advance(time.Second)
	}
	client := connect(t, fake, cfg)
	must(client.ssm.DeleteParameter(t.Context(), &ssm.DeleteParameterInput{Name: aws.String("/any/1")}))
	must(client.ec2.CreateLaunchTemplate(t.Context(), &ec2.CreateLaunchTemplateInput{
		LaunchTemplateName: aws.String("web"), LaunchTemplateData: &ec2types.RequestLaunchTemplateData{ImageId: aws.String("ami-00000000000000000")},
	}))
	before := len(fake.Requests())
	fake.SetKnobs(awstest.Knobs{Policies: []string{policy}})
	o := ami.GCOptions{OlderThan: -time.Hour, Retention: &ami.Retention{KeepLast: 1, NamePrefix: "machine-"}}
	if found, err := ami.GC(t.Context(), cfg, o); err != nil || len(found) != 1 || len(fake.Snapshots()) != 1 {
		t.Errorf("GC: %v, %v", found, err)
	}
	checkUsed(t, fake.Requests()[before:], policy, map[string]bool{})
}

// checkUsed reports actions of a policy that no request required and that are
// not among used.
func checkUsed(t *testing.T, requests []awstest.Request, policy string, used map[string]bool) {
	t.Helper()
	for _, r := range requests {
		action := r.Service + ":" + r.Operation
		used[cmp.Or(exampleActions[action], action)] = true
	}
	var decoded struct {
		Statement []struct{ Action any }
	}
	if err := json.Unmarshal([]byte(policy), &decoded); err != nil {
		t.Fatal(err)
	}
	for _, statement := range decoded.Statement {
		actions, _ := statement.Action.([]any)
		if one, ok := statement.Action.(string); ok {
			actions = []any{one}
		}
		for _, action := range actions {
			if name := action.(string); !used[name] && !strings.HasPrefix(name, "kms:") { // the fake does not have KMS
				t.Errorf("the policy allows %s, which no request needs", name)
			}
		}
	}
}

// exampleActions are the actions of S3 that are not named like their operation.
var exampleActions = map[string]string{
	"s3:CreateMultipartUpload": "s3:PutObject",
	"s3:HeadBucket":            "s3:ListBucket",
	"s3:HeadObject":            "s3:GetObject",
	"s3:ListMultipartUploads":  "s3:ListBucketMultipartUploads",
}
