package client

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/docker/cli/cli/config"
	"github.com/moby/buildkit/cmd/buildctl/build"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	policy "github.com/moby/buildkit/sourcepolicy/pb"
)

// session returns what BuildKit asks the client for during the build: registry
// credentials, secrets and SSH agents.
func (o Options) session() ([]session.Attachable, error) {
	registries := authprovider.DockerAuthProviderConfig{
		AuthConfigProvider: authprovider.LoadAuthConfig(config.LoadDefaultConfigFile(os.Stderr)),
	}
	all := []session.Attachable{authprovider.NewDockerAuthProvider(registries)}
	secrets, err := build.ParseSecret(o.Secrets)
	if err != nil {
		return nil, fmt.Errorf("--secret: %w", err)
	}
	all = append(all, secrets)
	if len(o.SSH) > 0 {
		agents, err := build.ParseSSH(o.SSH)
		if err != nil {
			return nil, fmt.Errorf("--ssh: %w", err)
		}
		forwarded, err := sshprovider.NewSSHAgentProvider(agents)
		if err != nil {
			return nil, fmt.Errorf("--ssh: %w", err)
		}
		all = append(all, forwarded)
	}
	return all, nil
}

// sourcePolicyVariable names the file with the source policy.
const sourcePolicyVariable = "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY"

// sourcePolicy reads the file that docker buildx also reads. It is optional.
func sourcePolicy() (*policy.Policy, error) {
	path := os.Getenv(sourcePolicyVariable)
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", sourcePolicyVariable, err)
	}
	var p policy.Policy
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", sourcePolicyVariable, path, err)
	}
	return &p, nil
}
