package ami

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
)

// scaling are the Auto Scaling groups and their launch configurations.
type scaling struct {
	autoscaling *autoscaling.Client
	caller      caller
}

// images adds to used which images launch configurations and the overrides of
// groups name. The launch templates of the groups are not among them.
func (s scaling) images(ctx context.Context, used map[string]string) error {
	configurations := autoscaling.NewDescribeLaunchConfigurationsPaginator(s.autoscaling, &autoscaling.DescribeLaunchConfigurationsInput{})
	for page, err := range pages(ctx, s.caller, configurations) {
		if err != nil {
			return describe("list launch configurations", err)
		}
		for _, c := range page.LaunchConfigurations {
			used[aws.ToString(c.ImageId)] = "the launch configuration " + aws.ToString(c.LaunchConfigurationName) + " uses it"
		}
	}
	groups := autoscaling.NewDescribeAutoScalingGroupsPaginator(s.autoscaling, &autoscaling.DescribeAutoScalingGroupsInput{})
	for page, err := range pages(ctx, s.caller, groups) {
		if err != nil {
			return describe("list Auto Scaling groups", err)
		}
		for _, g := range page.AutoScalingGroups {
			if g.MixedInstancesPolicy == nil || g.MixedInstancesPolicy.LaunchTemplate == nil {
				continue
			}
			for _, o := range g.MixedInstancesPolicy.LaunchTemplate.Overrides {
				if o.ImageId != nil {
					used[*o.ImageId] = "the Auto Scaling group " + aws.ToString(g.AutoScalingGroupName) + " uses it"
				}
			}
		}
	}
	return nil
}
