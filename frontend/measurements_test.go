package frontend

import (
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/solver/pb"

	"github.com/slipway-build/slipway/exporter/measure"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/internal/gatewaytest"
)

// secretsOf returns the IDs of the secrets that the exporter gets, with "?" after
// optional ones, and reports whether its vertex depends on the session.
func (s solvedGraph) secretsOf() (ids []string, session bool) {
	for _, op := range s.ops {
		for _, m := range op.GetExec().GetMounts() {
			if secret := m.SecretOpt; secret != nil {
				id := secret.ID
				if secret.Optional {
					id += "?"
				}
				ids = append(ids, id)
			}
			session = session || m.Dest == "/session"
		}
	}
	return ids, session
}

// --call=machine.measurements writes the machine in the format of --target, and
// returns what the exporter predicts. For signed machines, the exporter gets the
// keys of the firmware, if there are any.
func TestMeasurements(t *testing.T) {
	for _, test := range []struct {
		sign    string
		secrets []string
	}{
		{"false", nil},
		{"true", []string{"slipway.key", "slipway.crt", "slipway.uefi-data?"}},
		{"later", []string{"slipway.uefi-data?"}},
	} {
		g := newGateway(t, signedYAML)
		g.Opts["target"], g.Opts["build-arg:SIGN"] = "raw-efi", test.sign
		g.Run = func(op *pb.ExecOp) (gatewaytest.Files, error) {
			if !slices.Contains(op.Meta.Args, "--pcrs") {
				return gatewaytest.Files{segment.FileName: "segment"}, nil
			}
			return gatewaytest.Files{"aws.pcrs.json": `{"secureBoot": true, "pcrs": {"sha256": {"4": "abcd"}}, "events": [{"pcr": 4, "type": "EV_SEPARATOR", "description": "separator"}]}`}, nil
		}
		var m measure.Measurements
		text := call(t, g, "frontend.machine.measurements", &m)
		if !m.SecureBoot || m.PCRs["sha256"]["4"] != "abcd" || !strings.Contains(text, "4    abcd\n") || !strings.Contains(text, "EV_SEPARATOR") {
			t.Errorf("SIGN=%s: %+v, text\n%s", test.sign, m, text)
		}
		if secrets, session := onlyGraph(t, g).secretsOf(); !slices.Equal(secrets, test.secrets) || session != (test.secrets != nil) {
			t.Errorf("SIGN=%s: secrets %q, want %q; session mounted: %t", test.sign, secrets, test.secrets, session)
		}
	}
	for _, target := range []string{"", "qcow2", "raw,uki"} {
		g := newGateway(t, signedYAML)
		g.Opts["target"], g.Opts["requestid"] = target, "frontend.machine.measurements"
		_, err := Build(t.Context(), g)
		wantError(t, err, "--target: --call=machine.measurements needs one format whose measurements are known: aws, raw, raw-efi, raw-verity, uki")
	}
}
