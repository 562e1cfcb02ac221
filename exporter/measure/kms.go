package measure

// A KeyPolicy is a policy of a key in AWS KMS, for encoding as JSON.
type KeyPolicy struct {
	Version   string
	Statement []keyStatement
}

type keyStatement struct {
	Sid, Effect string
	Principal   map[string]string
	Action      []string
	Resource    string
	Condition   map[string]map[string]string
}

// KMSPolicy returns a policy that lets a role, an ARN, decrypt with a key from a
// machine that attests these registers. Their keys are condition keys of AWS KMS,
// for example kms:RecipientAttestation:PCR0.
func KMSPolicy(role string, registers map[string]string) KeyPolicy {
	return KeyPolicy{"2012-10-17", []keyStatement{{
		Sid: "SlipwayMachine", Effect: "Allow", Principal: map[string]string{"AWS": role}, Action: []string{"kms:Decrypt"}, Resource: "*",
		Condition: map[string]map[string]string{"StringEqualsIgnoreCase": registers},
	}}}
}
