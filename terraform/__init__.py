"""The cloud under Haetsal, as a CDKTF application (cdktn): three stacks of one environment, written as Terraform JSON."""
