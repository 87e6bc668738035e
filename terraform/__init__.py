"""The cloud under Haetsal as a CDKTF application (cdktn): an environment's three stacks, written as Terraform JSON."""
