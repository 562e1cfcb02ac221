package awstest

import (
	"cmp"
	"regexp"
	"strings"
)

// encryption returns whether a new snapshot is encrypted and the ARN of its
// key.
func (c *call) encryption(asked bool, key string) (bool, string, error) {
	if key != "" && !asked {
		return false, "", violation("ValidationException", "a KMS key requires Encrypted").withReason("INVALID_PARAMETER_VALUE")
	}
	if key != "" && !keyPattern.MatchString(key) {
		return false, "", violation("ValidationException", "%q is not a KMS key", key).withReason("INVALID_CUSTOMER_KEY")
	}
	if parts := strings.Split(key, ":"); len(parts) > 3 && parts[3] != c.Region {
		return false, "", violation("ValidationException", "the KMS key %s is not in %s", key, c.Region).withReason("INVALID_CUSTOMER_KEY")
	}
	if !asked && !c.knobs.EncryptByDefault {
		return false, "", nil
	}
	return true, keyARN(c.Region, key), nil
}

// keyPattern matches the ARN, the ID or the alias of a KMS key.
var keyPattern = regexp.MustCompile(`^(arn:aws[\w-]*:kms:[\w-]+:\d{12}:(key|alias)/)?[\w/-]+$`)

// keyARN returns the ARN of a key; "" means the account's default key for EBS.
func keyARN(region, key string) string {
	if strings.HasPrefix(key, "arn:") {
		return key
	}
	key = cmp.Or(key, "00000000-0000-4000-8000-0000000000eb")
	if !strings.HasPrefix(key, "alias/") {
		key = "key/" + key
	}
	return "arn:aws:kms:" + region + ":" + Account + ":" + key
}
