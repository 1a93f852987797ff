"""The nets that exhaustive tests cover one by one; those of test_slim_nets.py take too long for that."""

CHAINS = (
    'alexnet',
    'alexnet_bn',
    'alexnet_v2',
    'bvlc_alexnet',
    'caffenet',
    'cifarnet',
    'lenet',
    'torchvision_alexnet',
)
