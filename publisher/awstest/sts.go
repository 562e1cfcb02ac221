package awstest

func stsService() *service {
	return queryService(stsVersion, map[string]func(*call) (any, error){
		"GetCallerIdentity": func(c *call) (any, error) {
			if err := c.form.done(); err != nil {
				return nil, err
			}
			return struct {
				Arn     string
				UserID  string `xml:"UserId"`
				Account string
			}{userARN, "AIDACKCEVSQ6C2EXAMPLE", Account}, nil
		},
	})
}
